//! The fuzzer's program: libFuzzer's `main` around the target that `HULL_FUZZ_TARGET` names.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use hull_fuzz::Target;

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("HULL_FUZZ_TARGET").unwrap_or_default();
        let found = hull_fuzz::target(&name);
        let target = found.expect("HULL_FUZZ_TARGET names a target (cargo xtask fuzz sets it)");
        let _ = TARGET.set(target); // Only this line sets it.
    },
    |bytes: &[u8]| {
        let target = TARGET.get().expect("libFuzzer initialises before it runs");
        (target.run)(bytes);
    }
);
