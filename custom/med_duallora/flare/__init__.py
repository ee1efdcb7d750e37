"""The only package that imports nvflare; each module is one FLARE role, thin over a pure core function.

job            what a job carries: its configuration, and the egress contract that follows from it
payload        the two kinds of replies a site may give, as FLARE Shareables
learner        site: answers train and validate tasks
boundary       site: the contract, the policy, the model and the ledger that the next two compare with
egress_filter  site: lets out what the contract names, and nothing else
egress_guard   site: acts after all filters of a job, on fed events, console answers and the public context
public_context site: what FLARE itself adds to what leaves
console_guard  site: takes file commands and rights that nobody shall have away from FLARE's own process
message_gate   site: the one gate for all messages to its processes; refuses and records
message_rules  site: which messages these are, from whom, and what right a command needs
site_check     site: says at the start whether its configuration is usable
receipts       site and server: ledger entries of what passed
tracking       site and server: the agreed metrics as TensorBoard scalars and console statistics
tensorboard    server: one run per site and one for itself, with readable tags
sender         server: which site sent a result, by the server's own word
selector       server: which adapter was the best so far, by accepted contributions only
aggregator     server: takes the contributions of a round, writes round_metrics.jsonl
persistor      server: the first, the last and the best global adapter as safetensors
evaluation     server: asks every site for its test scores after the last round, writes evaluation.json
recipe, export how all of these become a job
simulation     a whole federation in the FLARE simulator: workspace, command, completeness of the results
rounds_shown   what a terminal shows of it
rehearsal      production on one machine: provisioned kits, real processes, mutual TLS
processes      of either: started, recognised beyond doubt, and none of them left behind
"""
