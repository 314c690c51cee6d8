//! App Container Images beyond one file: names and labels, discovery, dependencies.
