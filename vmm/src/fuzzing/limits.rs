//! Rate limits, used in any way over any stretch of time.

use std::num::NonZeroU64;
use std::time::Duration;

use super::input::Input;
use crate::device::limit::{Limiter, Limits, Rate};

/// Rates and bursts first; then pauses, and requests whenever they may pass.
pub fn limits(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut rate = || {
        // Mostly such that a few requests matter.
        let wide = input.flag();
        let mut number = || if wide { input.u64() } else { u64::from(input.u16()) };
        let (per_second, burst) = (NonZeroU64::new(number()).unwrap_or(NonZeroU64::MIN), number());
        // What `Rate` makes of them.
        let per_second_kept = per_second.get().min(1 << 50);
        let burst_kept = burst.clamp((per_second_kept / 100).max(1), 1 << 50);
        (Rate::new(per_second, burst), per_second_kept, burst_kept)
    };
    let [(bytes_rate, bytes_per_second, bytes_burst), (operations_rate, per_second, burst)] =
        [rate(), rate()];
    let mut limiter = Limiter::new(Limits { bytes: Some(bytes_rate), operations: Some(operations_rate) });
    let (mut now, mut moved, mut count) = (Duration::ZERO, 0_u128, 0_u128);
    while let Some(action) = input.next() {
        if action & 1 == 0 {
            now += Duration::from_nanos(input.u32().into());
        } else {
            now += limiter.wait(now);
        }
        if limiter.wait(now).is_zero() {
            let allowed =
                |burst: u64, rate: u64| u128::from(burst) + u128::from(rate) * now.as_nanos() / 1_000_000_000;
            assert!(moved <= allowed(bytes_burst, bytes_per_second), "{moved} bytes after {now:?}");
            assert!(count < allowed(burst, per_second), "{count} operations after {now:?}");
            let size = input.u32() >> (action >> 3);
            limiter.spend(size.into(), now);
            (moved, count) = (moved + u128::from(size), count + 1);
        } else {
            assert_eq!(action & 1, 0, "whoever waits as long as told may pass");
        }
    }
}
