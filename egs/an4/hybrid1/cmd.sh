# How jobs are run: RUNNER [JOB=FIRST:LAST] LOG COMMAND..., the interface of Kaldi's run.pl; the log gets
# the command's output. Choose: local, or with ESPNET_ROOT also stdout, sge, slurm, pbs, ssh, whose
# options stand in conf/queue.conf, conf/slurm.conf and conf/pbs.conf. Or set train_cmd, cuda_cmd and
# decode_cmd themselves, to a runner of your own with options.
cmd_backend='local'
. "${common:-../../common}/cmd_backend.sh"
