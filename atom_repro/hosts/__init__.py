"""Where a session runs: in this process, or wherever else a host can run one."""
