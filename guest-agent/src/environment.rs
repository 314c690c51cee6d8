//! The environment of an app: what the pod says, and the few variables that every program expects.

use hull_agent_protocol::{AppSpec, StandardStreams};

use crate::identity::Identity;

/// The search path of an app whose environment has none, as rkt's.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The app's variables, then those it lacks.
pub(crate) fn complete(app: &AppSpec, identity: &Identity) -> Vec<(String, String)> {
    let terminal = matches!(app.streams, StandardStreams::Terminal { .. });
    let defaults = [
        ("PATH", PATH),
        ("HOME", &identity.home),
        ("USER", &identity.name),
        ("LOGNAME", &identity.name),
        ("SHELL", "/bin/sh"),
        ("AC_APP_NAME", &app.name),
        ("TERM", "xterm"),
    ];
    let wanted = &defaults[..defaults.len() - usize::from(!terminal)];
    let mut all = app.environment.clone();
    for (name, value) in wanted {
        if !all.iter().any(|(known, _)| known == name) {
            all.push(((*name).into(), (*value).into()));
        }
    }
    all
}

/// The value of `PATH` in an environment.
pub(crate) fn path(environment: &[(String, String)]) -> &str {
    environment.iter().find(|(name, _)| name == "PATH").map_or(PATH, |(_, value)| value)
}
