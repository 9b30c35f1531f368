"""The steps of `scripts/gpu_check.sh`: each module has `run(findings, out)`."""
