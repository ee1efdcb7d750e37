"""Every decision of a campaign, against a federation in memory."""

import pytest

from med_duallora.campaign.look import Abort, Submit
from med_duallora.campaign.state import Campaign, Phase
from tests.unit.campaign.world import RULES, SITES, Job, World


@pytest.fixture
def world() -> World:
    return World()


def finish(world: World, first: int = 0) -> None:
    """Let the present job do all rounds that are left, and end."""
    for index in range(first, RULES.n_rounds):
        world.round(index)
        world.second()
    world.jobs[world.campaign.job_id].end("FINISHED:COMPLETED")


def test_an_undisturbed_training_is_one_job(world: World) -> None:
    world.until_job("job-0")
    finish(world)
    assert world.until_over() == "done"
    assert world.submissions() == 1
    assert world.campaign.evaluated
    assert [order for order in world.orders if isinstance(order, Abort)] == []
    (job,) = world.campaign.jobs
    assert (job.first_round, job.last_round, job.sites, job.reason) == (0, 3, tuple(sorted(SITES)), "")


def test_a_job_that_dies_is_followed_by_one_from_the_next_round(world: World) -> None:
    world.until_job("job-0")
    world.round(0)
    world.round(1)
    world.jobs["job-0"].end("FINISHED:EXECUTION_EXCEPTION")
    world.until_job("job-1")
    assert world.campaign.first_round == 2
    finish(world, 2)
    assert world.until_over() == "done"
    assert [job.last_round for job in world.campaign.jobs] == [1, 3]


def test_an_end_is_believed_when_it_was_seen_twice(world: World) -> None:
    """A RUNNING that comes late replaces an end, and the other way round: what runs at the server decides."""
    job = world.until_job("job-0")
    job.status = "FINISHED:ABORTED"  # but it runs
    world.seconds(20)
    assert world.campaign.phase is Phase.RUNNING
    job.status, job.runs = "RUNNING", False  # for one look
    world.second()
    job.runs = True
    world.seconds(20)
    assert (world.campaign.phase, world.campaign.job_id) == (Phase.RUNNING, "job-0")


def test_a_late_running_does_not_keep_a_job_alive(world: World) -> None:
    job = world.until_job("job-0")
    job.end("RUNNING")
    world.until_job("job-1", 60)
    assert world.campaign.jobs[0].status == "RUNNING"


def test_an_abort_that_did_nothing_is_asked_for_again_and_no_second_job_begins(world: World) -> None:
    job = world.until_job("job-0")
    world.seconds(40)
    job.stubborn = True
    job.sites.discard("ge")  # it was started again
    world.seconds(10)
    world.round(0)
    world.second()
    job.status = "FINISHED:ABORTED"  # FLARE says so, and the job runs
    world.seconds(100)
    assert world.submissions() == 1
    assert len([order for order in world.orders if isinstance(order, Abort)]) >= 3
    job.end("FINISHED:ABORTED")
    world.until_job("job-1", 60)


def test_a_site_that_lost_the_job_is_taken_back_at_the_end_of_a_round(world: World) -> None:
    job = world.until_job("job-0")
    world.seconds(40)
    job.sites.discard("ge")
    world.seconds(30)
    assert world.campaign.phase is Phase.RUNNING, "the others are enough"
    world.round(0)
    world.seconds(2)
    assert world.campaign.phase in (Phase.STOPPING, Phase.COLLECTING)
    assert "ge" in world.until_job("job-1").sites
    assert world.campaign.first_round == 1


def test_too_few_sites_for_a_round_end_the_job_at_once(world: World) -> None:
    job = world.until_job("job-0")
    world.seconds(10)
    job.sites -= {"ge", "philips"}
    world.until_job("job-1", 40)
    assert "too few" in world.campaign.jobs[0].reason


def test_a_network_that_is_cut_for_half_a_minute_changes_nothing(world: World) -> None:
    world.until_job("job-0")
    world.seconds(10)
    world.sites -= {"ge"}
    world.seconds(30)
    world.sites |= {"ge"}
    world.seconds(100)
    assert world.submissions() == 1
    assert not [order for order in world.orders if isinstance(order, Abort)]


def test_a_site_that_stays_away_is_gone_on_without_once_rounds_do_not_end(world: World) -> None:
    job = world.until_job("job-0")
    world.seconds(10)
    world.sites -= {"ge"}
    world.seconds(70)
    world.round(0)  # slower, but rounds end: nothing is to be gained
    world.second()
    assert world.campaign.phase is Phase.RUNNING
    world.seconds(130)
    assert "ge" in world.campaign.away
    assert job.status == "FINISHED:ABORTED"
    assert world.until_job("job-1", 20).sites == {"philips", "siemens"}, "it was waited for once, not twice"
    world.seconds(40)
    world.sites |= {"ge"}
    world.seconds(20)
    assert "site-back" in world.kinds()
    world.round(1)
    assert "ge" in world.until_job("job-2", 60).sites


def test_missing_sites_are_waited_for_with_patience(world: World) -> None:
    world.until_job("job-0")
    world.sites -= {"ge"}
    world.jobs["job-0"].end("FINISHED:ABNORMAL")
    world.seconds(50)
    assert world.submissions() == 1
    world.until_job("job-1", 40)
    assert ("site-lost", "going on without ge") in world.events


def test_a_site_that_returns_in_time_is_in_the_next_job(world: World) -> None:
    world.until_job("job-0")
    world.sites -= {"ge"}
    world.jobs["job-0"].end("FINISHED:ABNORMAL")
    world.seconds(30)
    world.sites |= {"ge"}
    assert "ge" in world.until_job("job-1", 20).sites


def test_too_few_sites_for_too_long_end_the_campaign(world: World) -> None:
    world.sites = {"ge"}
    assert world.until_over() == "gave up"
    assert world.submissions() == 0
    assert "only 1 of at least 2 sites" in world.campaign.reason


def test_a_server_that_dies_costs_what_was_not_copied(world: World) -> None:
    job = world.until_job("job-0")
    world.round(0)
    world.server_start = None
    world.seconds(20)
    job.runs, job.archived, job.sites = False, False, set()  # FLARE lists it as RUNNING for ever
    world.server_start = 500.0
    world.until_job("job-1", 60)
    assert [kind for kind in world.kinds() if kind.startswith("server")] == ["server-silent", "server-back"]
    assert world.campaign.first_round == 1
    finish(world, 1)
    assert world.until_over() == "done"


def test_a_server_that_stays_away_ends_the_campaign(world: World) -> None:
    world.until_job("job-0")
    world.server_start = None
    assert world.until_over() == "gave up"
    assert "the server did not answer" in world.campaign.reason


def test_a_job_that_is_slow_to_be_archived_is_waited_for_only_without_copies(world: World) -> None:
    job = world.until_job("job-0")
    job.end("RUNNING")
    job.archived = False
    world.seconds(300)
    assert world.submissions() == 1, "without a copy, the archive is all that is left of it"
    other = World()
    job = other.until_job("job-0")
    other.round(0)
    job.end("RUNNING")
    job.archived = False
    other.until_job("job-1", 60)


def test_jobs_that_leave_nothing_end_the_campaign_more_and_more_slowly(world: World) -> None:
    moments = []
    for number in range(RULES.max_attempts):
        world.until_job(f"job-{number}")
        moments.append(world.now)
        world.jobs[f"job-{number}"].end("FINISHED:EXECUTION_EXCEPTION")
    assert world.until_over() == "gave up"
    assert world.campaign.reason == "3 jobs in a row left no new round"
    assert moments[2] - moments[1] > moments[1] - moments[0] > 0


def test_a_new_round_gives_the_attempts_back(world: World) -> None:
    for number in range(2):
        world.until_job(f"job-{number}")
        world.jobs[f"job-{number}"].end("FINISHED:EXECUTION_EXCEPTION")
    world.until_job("job-2")
    world.round(0)
    assert world.campaign.n_fruitless == 0


def test_a_lost_answer_to_a_submission_gives_no_second_job(world: World) -> None:
    while not isinstance(order := world.machine.step(world.look(), world.now), Submit):
        world.now += 1.0
    world.submit(order.token)  # FLARE has it, and the campaign is killed
    world.begin(Campaign.from_dict(world.campaign.to_dict()))
    world.seconds(3)
    assert (world.campaign.job_id, world.submissions()) == ("job-0", 1)


def test_a_killed_campaign_goes_on_with_its_job(world: World) -> None:
    world.until_job("job-0")
    world.round(0)
    world.begin(Campaign.from_dict(world.campaign.to_dict()))
    world.seconds(30)
    assert world.submissions() == 1
    world.round(1)
    world.round(2)
    world.round(3)
    world.jobs["job-0"].end("FINISHED:COMPLETED")
    assert world.until_over() == "done"


@pytest.mark.parametrize("status", ["RUNNING", "SUBMITTED"])
def test_another_job_of_the_campaign_ends_first(status: str, world: World) -> None:
    world.jobs["stray"] = Job(status, runs=status == "RUNNING", stubborn=True)
    world.seconds(100)
    assert world.submissions() == 0
    assert Abort("stray") in world.orders
    world.jobs["stray"].end("FINISHED:ABORTED")
    world.by_token["x"] = "stray"
    world.seconds(30)
    assert world.campaign.phase is Phase.RUNNING


def test_a_job_that_a_dead_server_left_as_running_is_in_nobodys_way(world: World) -> None:
    world.jobs["ghost"] = Job("RUNNING", runs=False)
    world.seconds(20)
    assert world.campaign.phase is Phase.RUNNING
    assert not [order for order in world.orders if isinstance(order, Abort)]


def test_processes_of_the_former_job_end_before_the_next_one_begins(world: World) -> None:
    job = world.until_job("job-0")
    job.status, job.runs = "FINISHED:EXECUTION_EXCEPTION", False  # and the sites have not heard of it yet
    world.seconds(40)
    assert world.submissions() == 1
    job.sites = set()
    world.until_job("job-1", 20)


def test_a_job_that_is_not_scheduled_is_said_and_waited_for(world: World) -> None:
    job = world.until_job("job-0")
    job.status, job.runs, job.sites = "SUBMITTED", False, set()
    world.seconds(200)
    assert world.kinds().count("pending") == 1
    assert world.submissions() == 1


def test_a_job_that_was_being_sent_when_the_server_died_is_over(world: World) -> None:
    job = world.until_job("job-0")
    job.status, job.runs, job.sites, job.archived = "DISPATCHED", False, set(), False
    world.seconds(30)
    assert world.submissions() == 1
    world.server_start = 900.0
    world.until_job("job-1", 60)


def test_no_site_is_taken_back_for_the_evaluation(world: World) -> None:
    job = world.until_job("job-0")
    world.seconds(40)
    for index in range(4):
        world.round(index)
    job.sites.discard("ge")
    world.seconds(50)
    assert world.campaign.phase is Phase.RUNNING
    job.end("FINISHED:COMPLETED")
    assert world.until_over() == "done"
    assert world.campaign.evaluated


def test_an_evaluation_that_waits_for_a_lost_site_is_given_up(world: World) -> None:
    job = world.until_job("job-0")
    world.seconds(40)
    for index in range(4):
        world.round(index)
    job.sites.discard("ge")
    assert world.until_over() == "done"
    assert world.campaign.jobs[0].reason == "sites are missing at the evaluation"


def test_a_round_that_is_known_already_is_no_news(world: World) -> None:
    world.until_job("job-0")
    world.round(1)
    world.round(0)
    assert world.campaign.round_index == 1
    assert world.kinds().count("round") == 1


def test_a_state_survives_as_json(world: World) -> None:
    world.until_job("job-0")
    world.round(0)
    world.jobs["job-0"].end("FINISHED:ABNORMAL")
    world.seconds(10)
    assert Campaign.from_dict(world.campaign.to_dict()) == world.campaign
