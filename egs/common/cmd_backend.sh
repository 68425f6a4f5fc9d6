# The runners of cmd.sh's cmd_backend. Sourced by the recipes' cmd.sh.
case $cmd_backend in
    local)
        if [ -n "${ESPNET_ROOT:-}" ]; then runner=run.pl
        # Shows progress, and ends all its jobs on Ctrl-C.
        else runner="$python -m espnet_quant4.bin.run_job"; fi ;;
    stdout) runner=stdout.pl ;;
    sge) runner=queue.pl ;;
    slurm) runner=slurm.pl ;;
    pbs) runner=pbs.pl ;;
    ssh) runner=ssh.pl ;;
    *)
        echo "cmd.sh: cmd_backend=$cmd_backend; valid: local, stdout, sge, slurm, pbs, ssh" >&2
        exit 1 ;;
esac
export train_cmd=$runner cuda_cmd=$runner decode_cmd=$runner
