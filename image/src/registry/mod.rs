//! Images of registries: names, the distribution protocol (v1.1), credentials, mirrors.
