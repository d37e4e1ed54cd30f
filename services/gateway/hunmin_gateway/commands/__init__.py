"""The operator's commands: `hunmin keys`, `hunmin quotas`, `hunmin accounts`, `hunmin identity`. No server need run."""
