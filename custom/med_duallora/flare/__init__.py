"""The only package that imports nvflare; each module is one FLARE role, thin over a pure core function.

wire/              what site and server say to each other
  job              what a job carries: its configuration, and the egress contract that follows from it
  packing          tensors of a reply as bytes
  payload          the two kinds of replies a site may give, as FLARE Shareables
  receipts         ledger entries of what passed
  running_adapter  the last adapter of a job that still runs, over FLARE's console
  size             how many bytes a site sends in a round
  literal_guard    a job is built from literal JSON only, as it was signed; at sites and at the server
  connections      nobody speaks in another's name or has another's messages sent to himself; at sites and at the server
  tracking         the agreed metrics as TensorBoard scalars and console statistics
site/              in a site's process
  learner          answers train and validate tasks
  boundary         the contract, the policy, the site's offer and the ledger that the next two compare with
  egress_filter    lets out what the contract names, and nothing else
  egress_guard     acts after all filters of a job, on fed events, console answers and the public context
  public_context   what FLARE itself adds to what leaves
  console_guard    takes file commands and rights that nobody shall have away from FLARE's own process
  message_gate     every message to a site's processes passes here, or is refused and recorded
  message_rules    which of them may pass
  site_check       says at the start whether the site's configuration is usable
server/            in the server's process
  rounds           the training's rounds, among the sites that train
  aggregator       takes the contributions of a round, writes round_metrics.jsonl
  asked            answers the job's lead with the adapter of the last round, while the job runs
  persistor        the first, the last and the best global adapter as safetensors
  selector         which adapter was the best so far, by accepted contributions only
  evaluation       asks every site for its test scores after the last round, writes evaluation.json
  sender           which site sent a result, by the server's own word
  directory        the server's folder of a job, and its record of what arrived
  tensorboard      one run per site and one for the server, with readable tags
  timing           where the time of a round goes, writes round_times.jsonl
jobs/              how all of these become a job
  recipe           the job as an object
  export           the job as a folder
  submission       which folder is submitted, with settings changed on the way
local/             a whole federation on one machine
  simulation       in FLARE's simulator: command, and completeness of the results
  simulation_checks what would stop it, said before it starts
  earlier_states   local states that it goes on from
  workspace        its folder: who is at work in it, what it holds, how it is moved aside
  detour           paths that the simulator passes on whole
  rounds_shown     what a terminal shows of it
  rehearsal        production on one machine: provisioned kits, real processes, mutual TLS
  processes        of either: started, recognised beyond doubt, and none of them left behind
  interruptions    Ctrl-C and the like, which what stops processes and what FLARE catches must not lose
campaign/          a training that goes on by itself, in any federation
  gate             FLARE's console with an admin startup kit, logged in again after every loss
  wanted           the job that was asked for, and its next folder
  loop             look, decide, carry out, write down
"""
