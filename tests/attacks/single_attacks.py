"""The attacks of the attack table that have a test of their own; the others are rows of a parametrised test."""

from collections.abc import Callable
from typing import Any

from tests.attacks import test_after_filters as after
from tests.attacks import test_doors as doors
from tests.attacks import test_events as events
from tests.attacks import test_file_modes as modes
from tests.attacks import test_files as files
from tests.attacks import test_floor as floor
from tests.attacks import test_floors_of_classes as floors
from tests.attacks import test_links as links
from tests.attacks import test_literal as literal
from tests.attacks import test_messages as messages
from tests.attacks import test_poisoning as poisoning
from tests.attacks import test_results as results
from tests.attacks import test_side_channels as side
from tests.unit.flare.server import test_forged_contributions as server

EMPTY = "an empty TASK_RESULT_FILTER_ERROR leaves"
SINGLE: list[tuple[str, str, str, Callable[..., Any]]] = [
    (
        "task result: tensors",
        "a local tensor under a global name",
        "is not this site's current global adapter",
        results.test_a_local_tensor_under_a_global_name_is_blocked,
    ),
    (
        "task result: tensors",
        "the local adapter copied into the global parameters of the model itself",
        "equals a tensor that stays at the site",
        results.test_a_global_adapter_that_became_the_local_one_is_blocked,
    ),
    (
        "task result: kinds",
        "an object that is not a Shareable",
        "EXECUTION_RESULT_ERROR leaves",
        results.test_what_is_no_shareable_never_reaches_the_wire,
    ),
    ("errors", "the text of an exception", "the code alone", results.test_the_text_of_an_exception_does_not_leave),
    (
        "later filter of the job",
        "fails with a text",
        EMPTY,
        after.test_a_later_filter_that_fails_tells_nothing,
    ),
    (
        "handler of the job",
        "a context that makes the guard fail",
        EMPTY,
        after.test_a_damaged_context_does_not_keep_the_guard_from_its_work,
    ),
    ("handler of the job", "fills a cleared result again", EMPTY, after.test_a_cleared_result_is_not_filled_again),
    ("fed events", "text in a header", "sent without it", side.test_a_fed_event_leaves_without_what_was_hidden),
    ("fed events", "one metric fifty times", "sent once", side.test_a_metric_leaves_once_per_round_whatever_its_value),
    (
        "fed events",
        "log records turned into events",
        "dropped",
        side.test_log_records_converted_to_fed_events_are_dropped,
    ),
    (
        "show_stats",
        "the loss of one batch while a round runs",
        "left out of the answer",
        side.test_a_running_loss_of_a_small_batch_is_not_shown,
    ),
    (
        "show_errors",
        "a path in a text of another component",
        "the text is withheld",
        side.test_texts_of_other_components_are_withheld_from_the_console,
    ),
    (
        "task result: rounds",
        "the same round once more, trained from another adapter",
        "was already answered with another adapter",
        after.test_a_round_is_answered_once,
    ),
    (
        "tasks of other members",
        "a task sent as a message in the server's name",
        "TASK_UNSUPPORTED leaves",
        side.test_a_task_that_another_site_sends_is_not_done,
    ),
    (
        "tasks of other members",
        "the same before the run begins",
        "the task came before the run began",
        side.test_nor_is_it_answered_before_the_run_begins,
    ),
    (
        "job configuration: files",
        "HOCON that includes the site's own predictions and counts epochs by a label",
        "refused before the file is opened",
        literal.test_the_included_file_is_not_opened,
    ),
    (
        "job configuration: what is built",
        "another configuration than the one that was read",
        "is not what was signed",
        literal.test_a_job_that_changed_between_reading_and_building_is_refused,
    ),
    (
        "job configuration: what is built",
        "a job component with other settings",
        "is not what was signed",
        literal.test_a_job_that_is_built_with_other_settings_is_refused,
    ),
    (
        "command to a site",
        "a message inside another",
        "refused as well",
        messages.test_a_message_inside_another_is_looked_at_as_well,
    ),
    (
        "command to a site",
        "a thousand refused commands",
        "ten lines in the ledger",
        messages.test_refusals_do_not_fill_the_disk,
    ),
    (
        "tasks of other members",
        "a handler registered again",
        "TASK_UNSUPPORTED leaves",
        events.test_who_registers_a_handler_later_changes_nothing,
    ),
    ("code in a job", "Python files in the job", "refused as BYOC", doors.test_nobody_brings_code),
    (
        "code in a job",
        "a container image of the job's choice",
        "not allowed",
        doors.test_an_image_of_the_jobs_choice_is_code,
    ),
    ("code in a job", "a class under another key", "UnsafeComponentError", doors.test_nor_by_another_key),
    (
        "console",
        "cat, head, tail, grep, ls, pwd, report_env",
        "the site does not know the command",
        doors.test_the_site_no_longer_knows_file_commands,
    ),
    (
        "console",
        "a forged role, or FLARE's test role",
        "no more rights than the site gives",
        doors.test_forged_identities_get_no_more_than_the_site_gives,
    ),
    (
        "policy",
        "metrics that the policy keeps",
        EMPTY,
        floor.test_metrics_that_the_policy_keeps_do_not_leave,
    ),
    (
        "policy: floor of each class",
        "the size of a test split under the name of the training split's",
        EMPTY,
        floors.test_the_size_of_a_split_with_a_small_class_does_not_leave,
    ),
    (
        "policy: floor of each class",
        "a score of a small class as an event, or in the statistics",
        "not sent, left out",
        floors.test_nor_as_an_event_or_a_statistic,
    ),
    ("policy", "no site configuration", EMPTY, floor.test_without_a_site_configuration_nothing_leaves),
    ("policy", "a learner of somebody else", EMPTY, floor.test_without_a_model_of_the_site_nothing_leaves),
    ("policy", "a job without our settings", EMPTY, floor.test_a_job_without_our_settings_gets_nothing),
    (
        "role",
        "an adapter of a site that only evaluates, trained by a job's own code",
        EMPTY,
        floor.test_no_adapter_leaves_a_site_that_only_evaluates,
    ),
    (
        "role",
        "the training loss of a site that only evaluates, as a fed event",
        "dropped",
        floor.test_no_training_number_leaves_a_site_that_only_evaluates,
    ),
    ("ledger", "a ledger that cannot be written", EMPTY, floor.test_without_a_ledger_nothing_leaves),
    (
        "ledger",
        "a ledger whose end was cut before a result",
        EMPTY,
        floor.test_with_a_tampered_ledger_nothing_leaves,
    ),
    (
        "files read by other accounts",
        "trunk features and the site's secret, under the umask 000",
        "files 600, folders 700",
        files.test_nor_trunk_features_and_the_secret,
    ),
    (
        "files read by other accounts",
        "subjects that an earlier version prepared for everybody to read",
        "closed when they are used again",
        files.test_what_an_earlier_version_left_open_is_closed_when_it_is_used_again,
    ),
    ("feature cache", "a link to a file elsewhere", "not followed", links.test_nor_are_features),
    (
        "feature cache",
        "a folder of it that leads to the states, for the site to evict them",
        "not followed",
        links.test_a_folder_of_the_cache_does_not_lead_to_the_states,
    ),
    ("feature cache", "a secret that another account chose", "is a symbolic link", links.test_the_secret_is_not_a_link),
    (
        "symbolic links",
        "the file that a torn line of the ledger is set aside in",
        "not followed",
        links.test_a_torn_line_is_not_set_aside_through_a_link,
    ),
    (
        "symbolic links",
        "the state of a run to that of another",
        "set aside; the state before it serves",
        links.test_a_state_is_not_read_through_a_link,
    ),
    (
        "modes at a site",
        "a ledger that everybody can write",
        "verify: other accounts can write it; the next line closes it",
        modes.test_a_ledger_that_others_can_write_is_closed_and_says_so,
    ),
    (
        "modes at a site",
        "a ledger that belongs to another account",
        "it belongs to another account: nothing leaves",
        modes.test_a_ledger_of_another_account_takes_no_line,
    ),
    (
        "contribution at the server",
        "sent under the name of another site",
        "it was sent under the name",
        server.test_one_site_cannot_speak_for_another,
    ),
    (
        "contribution at the server",
        "a late result under the name of another site",
        "it does not count",
        server.test_a_late_result_cannot_be_sent_for_another_site,
    ),
    (
        "contribution at the server",
        "a second contribution, an unknown site, a huge update",
        "left out; the others count",
        server.test_all_four_ways_at_once_leave_the_good_sites_alone,
    ),
    (
        "poisoned contribution",
        "an update where most sites send nothing new",
        "scaled down to nothing",
        poisoning.test_where_most_sites_send_nothing_new_one_site_cannot_move_the_adapter,
    ),
    (
        "poisoned contribution",
        "another weight than its own number of subjects",
        "refused",
        poisoning.test_a_weight_that_is_not_the_number_of_subjects_is_refused,
    ),
    (
        "poisoned contribution",
        "a weight of 10^9, or of almost nothing, in a job of uniform weights",
        "counts as 1",
        poisoning.test_a_weight_in_a_job_of_uniform_weights_counts_as_one,
    ),
    (
        "poisoned contribution",
        "one to four of six to nine sites collude, without any measure",
        "each counts as 1.4 median sites at most, and the adapter moves no further than a median update",
        poisoning.test_colluding_sites_count_as_so_many_median_sites_and_not_more,
    ),
    (
        "poisoned contribution",
        "one or two of five turn their updates round, below all limits, with the rule geometric-median",
        "the adapter stays nearer to the honest sites than the mean",
        poisoning.test_the_geometric_median_stays_nearer_to_the_honest_products_than_the_mean,
    ),
    (
        "message to a site",
        "an address to connect to, where half of the site's messages would go",
        "refused and recorded: it names an address to connect to",
        messages.test_a_site_connects_to_no_address_that_a_message_names,
    ),
    (
        "choice of the best adapter",
        "scores of refused contributions",
        "they do not count",
        server.test_a_refused_contribution_does_not_choose_the_best_adapter,
    ),
]
"""Channel, trick, refusal, and the test, which is named so that the row cannot outlive it."""
