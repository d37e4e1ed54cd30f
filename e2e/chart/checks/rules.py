"""All rules."""

from collections.abc import Callable, Iterator

from chart.checks import api, dashboards, images, network, objects, pods, settings
from chart.rendering import Object

Rule = Callable[[list[Object]], Iterator[str]]

RULES: list[Rule] = [
    api.fields_are_known,
    pods.restricted_pod_security,
    pods.read_only_root,
    pods.sized_scratch,
    pods.mounts_are_volumes,
    pods.resources_everywhere,
    pods.probes_distinct,
    pods.grace_beyond_drain,
    pods.replaced_one_by_one,
    pods.no_duplicate_env,
    pods.no_service_links,
    pods.spread_over_nodes,
    pods.tokens_where_used,
    objects.names_from_one_place,
    objects.hooks_hold_only_jobs,
    objects.hooks_use_nothing_of_the_release,
    objects.references_are_there,
    objects.no_secret_outside_secrets,
    objects.rbac_is_narrow,
    objects.selectors_find_their_pods,
    objects.scaled_by_one,
    objects.disruption_budgets,
    objects.jobs_may_run_again,
    objects.schemas_are_migrated_in_time,
    objects.tuning_jobs_have_their_volume,
    network.everything_is_denied,
    network.edges_are_explicit,
    network.needed_edges_are_there,
    network.unneeded_edges_are_not,
    network.outer_edges_are_there,
    images.images_are_pinned,
    settings.settings_are_read,
    settings.commands_are_known,
    dashboards.metrics_exist,
]
