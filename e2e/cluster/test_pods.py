"""A pod of each service is deleted in turn under load: only streams that lived there may notice; nothing is lost."""

import time

import pytest
from auditor import check
from cluster.kube import SERVICES, kubectl, pods, wait_until_ready
from load import Load, went_on

SETTLED_WITHIN_S = 180
READY_WITHIN_S = 300  # the startup probe's patience, by default


@pytest.mark.timeout(1200)
def test_a_pod_of_each_service_is_deleted_under_load(account, studio):
    seconds = {}
    with Load(studio.url, account.key, time.time_ns() % 100_000, studio.model).running() as load:
        went_on(load)
        for part in SERVICES:
            gone = pods(part)[0]["metadata"]["name"]
            kubectl("delete", "pod", gone, "--wait=false")
            seconds[part] = round(wait_until_ready(part, without=gone, within_s=READY_WITHIN_S), 1)
            went_on(load)
    print(f"ready again after (s): {seconds}; {len(load.answers)} requests, failures: {load.failures}")
    account.auditor.wait_until_settled(within_s=SETTLED_WITHIN_S)
    print(check(account.auditor, load.answers))
    assert [failure for failure in load.failures if failure.how == "whole" and failure.is_lost] == []
