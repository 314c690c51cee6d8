//! How fast a device may go: token buckets for bytes and operations, as pure arithmetic over a clock that the
//! caller reads.
#![forbid(unsafe_code)]

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// The highest rate and the largest burst: above, nothing is limited, and the arithmetic has room to spare.
const RATE_MAX: u64 = 1 << 50;

/// So much in a second, and so much at once after a rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// A burst is at least what a hundredth of a second gives: finer than that nobody is woken.
    pub fn new(per_second: NonZeroU64, burst: u64) -> Self {
        let per_second = per_second.get().min(RATE_MAX);
        Self { per_second, burst: burst.clamp((per_second / 100).max(1), RATE_MAX) }
    }
}

/// The limits of one direction of a device; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Data, without what the protocol adds.
    pub bytes: Option<Rate>,
    /// Requests, or frames.
    pub operations: Option<Rate>,
}

/// A bucket that is kept as the moment at which it will be full again. What is taken may be more than there
/// is: whoever comes next waits until the debt is paid, so that no request is too large to pass.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    /// In ticks since the clock's zero.
    full_at: u128,
}

/// A tick is a picosecond: at the highest rates a byte takes less than a nanosecond.
const TICKS: u128 = 1_000_000_000_000;

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self { rate, full_at: 0 }
    }

    fn ticks_for(self, amount: u64) -> u128 {
        (u128::from(amount) * TICKS).div_ceil(self.rate.per_second.into())
    }

    /// How long until there is something in it: a byte, an operation.
    fn wait(self, now: u128) -> u128 {
        (self.full_at + self.ticks_for(1)).saturating_sub(now + self.ticks_for(self.rate.burst))
    }

    fn take(&mut self, amount: u64, now: u128) {
        self.full_at = self.full_at.max(now) + self.ticks_for(amount);
    }
}

/// The buckets of one direction of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl Limiter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { bytes: limits.bytes.map(Bucket::new), operations: limits.operations.map(Bucket::new) }
    }

    /// How long until the next request may pass; zero is now.
    pub(crate) fn wait(&self, now: Duration) -> Duration {
        let now = now.as_nanos() * 1000;
        let ticks = [self.bytes, self.operations].into_iter().flatten().map(|bucket| bucket.wait(now)).max();
        Duration::from_nanos(u64::try_from(ticks.unwrap_or(0).div_ceil(1000)).unwrap_or(u64::MAX))
    }

    /// A request of so many bytes has passed.
    pub(crate) fn spend(&mut self, bytes: u64, now: Duration) {
        let now = now.as_nanos() * 1000;
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes, now);
        }
        if let Some(bucket) = &mut self.operations {
            bucket.take(1, now);
        }
    }
}

/// What requests go through: a limiter and its clock, or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate(Option<(Limiter, Instant)>);

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        // Without limits no clock is ever read.
        Self((limits != Limits::default()).then(|| (Limiter::new(limits), Instant::now())))
    }

    /// How long it stays closed; `None` if a request may pass now.
    pub(crate) fn closed(&self) -> Option<Duration> {
        let (limiter, began) = self.0.as_ref()?;
        Some(limiter.wait(began.elapsed())).filter(|wait| !wait.is_zero())
    }

    /// A request of so many bytes has passed.
    pub(crate) fn pass(&mut self, bytes: u64) {
        if let Some((limiter, began)) = &mut self.0 {
            limiter.spend(bytes, began.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(per_second: u64, burst: u64) -> Rate {
        Rate::new(NonZeroU64::new(per_second).unwrap(), burst)
    }

    fn limiter(bytes: Option<Rate>, operations: Option<Rate>) -> Limiter {
        Limiter::new(Limits { bytes, operations })
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_passes_at_once_and_the_rest_in_time() {
        let mut limiter = limiter(None, Some(rate(1000, 10)));
        for _ in 0..10 {
            assert_eq!(limiter.wait(MS), Duration::ZERO);
            limiter.spend(4096, MS);
        }
        assert!(limiter.wait(MS) <= MS && Duration::ZERO < limiter.wait(MS));
        assert_eq!(limiter.wait(2 * MS), Duration::ZERO);
    }

    #[test]
    fn a_request_above_the_burst_passes_and_is_paid_for() {
        let mut limiter = limiter(Some(rate(1000, 100)), None);
        limiter.spend(1100, Duration::ZERO);
        // A burst was there; a thousand bytes are owed, which is a second.
        let wait = limiter.wait(Duration::ZERO);
        assert_eq!(wait, 1001 * MS, "and the first byte after");
        assert_eq!(limiter.wait(wait), Duration::ZERO);
    }

    #[test]
    fn the_stricter_limit_counts() {
        let mut limiter = limiter(Some(rate(1 << 20, 1 << 20)), Some(rate(10, 1)));
        limiter.spend(1, Duration::ZERO);
        assert!(90 * MS < limiter.wait(Duration::ZERO));
        assert_eq!(Limiter::new(Limits::default()).wait(MS), Duration::ZERO);
    }

    proptest! {
        /// However it is used, as many pass in any time as rate and burst allow, and one request more; and
        /// whoever waits as long as told may pass.
        #[test]
        fn no_more_passes_than_allowed(
            per_second in 1_u64..1 << 40,
            burst in 0_u64..1 << 40,
            requests in prop::collection::vec((0_u64..1 << 30, 0_u64..50_000_000), 1..100),
        ) {
            let rate = rate(per_second, burst);
            let mut limiter = limiter(Some(rate), None);
            let (mut now, mut passed) = (Duration::ZERO, 0_u128);
            for (bytes, pause) in requests {
                now += Duration::from_nanos(pause);
                now += limiter.wait(now);
                prop_assert_eq!(limiter.wait(now), Duration::ZERO);
                let allowed = u128::from(rate.burst) + u128::from(rate.per_second) * now.as_nanos() / 1_000_000_000;
                prop_assert!(passed <= allowed, "{} above {}", passed, allowed);
                limiter.spend(bytes, now);
                passed += u128::from(bytes);
            }
        }

        #[test]
        fn no_number_panics(per_second in 1_u64.., burst: u64, bytes: u64, now: u64, later: u64) {
            let mut limiter = limiter(Some(rate(per_second, burst)), Some(rate(burst.max(1), per_second)));
            for now in [now, later, u64::MAX] {
                limiter.spend(bytes, Duration::from_secs(now));
                limiter.wait(Duration::from_secs(later));
            }
        }
    }
}
