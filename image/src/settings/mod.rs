//! The files below `/usr/lib/hull`, `/etc/hull` and `--user-config` that tell hull how to fetch.
