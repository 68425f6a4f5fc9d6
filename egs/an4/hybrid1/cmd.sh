# How to run a job: RUNNER [JOB=FIRST:LAST] LOG COMMAND..., the interface of Kaldi's run.pl; the log
# gets the command's output. The default runs here, shows progress, and ends all its jobs on Ctrl-C;
# on a cluster name its own script instead, such as queue.pl or slurm.pl.
# shellcheck disable=SC2154
export train_cmd="$python -m espnet_quant4.bin.run_job"
export decode_cmd="$python -m espnet_quant4.bin.run_job"
