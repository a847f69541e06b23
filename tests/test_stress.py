"""A few cases of each row of `make stress`."""

import os
import random
import sys

import pytest

from .stress import disks, names, rows

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def run(row_of, count, folder):
    """Do a row's cases, restoring where runs are kept."""
    row, before = rows.Row(), os.environ["CONTRASTIVE_RUNS"]
    try:
        row_of(row, count, random.Random(7), folder)
    finally:
        os.environ["CONTRASTIVE_RUNS"] = before
    if row.remark.startswith("not done"):
        pytest.skip(row.remark)
    assert row.problems == []
    return row


@linux
def test_killed_runs_end_with_the_same_bits(tmp_path):
    row = run(rows.kills, 4, tmp_path)
    assert row.cases == 4
    assert row.hits > 0


@linux
def test_damaged_files_are_noticed_or_harmless(tmp_path):
    assert run(rows.damage, 60, tmp_path).cases == 60


def test_made_up_settings_and_files_work_or_give_one_line(tmp_path):
    assert run(rows.fuzz, 300, tmp_path).cases >= 250


@linux
def test_a_full_disk_harms_nothing(tmp_path):
    row = run(disks.full_in_runs, 4, tmp_path)
    assert row.cases == 4
    assert row.hits > 0


@linux
def test_a_report_on_a_full_disk_says_so(tmp_path):
    row = run(disks.full_in_reports, 1, tmp_path)
    assert row.cases == row.hits == 1


@linux
def test_several_processes_on_one_run_and_one_index(tmp_path):
    assert run(rows.several_at_once, 1, tmp_path).cases == 4


def test_names_that_attack_are_inert(tmp_path):
    if names.browser_path() is None:
        pytest.skip("needs Chromium")
    assert run(names.attack_names, 1, tmp_path).cases > 60
