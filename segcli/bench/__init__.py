"""What `segcli bench` measures: this machine, against the peers, in the same run."""
