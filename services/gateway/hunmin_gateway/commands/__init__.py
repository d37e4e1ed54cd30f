"""The operator's commands: `hunmin keys`, `hunmin quotas`, `hunmin accounts`. No server need run."""
