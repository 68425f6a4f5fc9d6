# How to run a job: RUNNER LOGFILE COMMAND...; the log gets the command's output.
# Like Kaldi's run.pl on this machine; on a cluster put its own submission command here.
run_here() { local log=$1; shift; "$@" > "$log" 2>&1; }
export train_cmd=run_here
export decode_cmd=run_here
