//! When to renew a certificate: arithmetic only.

use std::time::SystemTime;

/// The earliest part of a lifetime, in hundredths, at which it is renewed.
pub const RENEW_FROM_PERCENT: u32 = 60;
/// The latest part of a lifetime, in hundredths, at which it is renewed.
pub const RENEW_UNTIL_PERCENT: u32 = 90;

/// The moment to renew: between 60 % and 90 % of the lifetime, spread by `jitter` from 0 to `u64::MAX`, so that
/// thousands of certificates signed together are not renewed together.
pub fn renewal_moment(valid_after: SystemTime, valid_before: SystemTime, jitter: u64) -> SystemTime {
    let lifetime = valid_before.duration_since(valid_after).unwrap_or_default();
    let earliest = lifetime * RENEW_FROM_PERCENT / 100;
    let spread = lifetime * (RENEW_UNTIL_PERCENT - RENEW_FROM_PERCENT) / 100;
    // The upper half of the jitter is fine enough, and 32 bits times a duration cannot overflow.
    let share = f64::from(u32::try_from(jitter >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    valid_after + earliest + spread.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn renewal_falls_between_60_and_90_percent_of_the_lifetime() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let end = start + Duration::from_secs(1_000);
        assert_eq!(renewal_moment(start, end, 0), start + Duration::from_secs(600));
        assert_eq!(renewal_moment(start, end, u64::MAX), start + Duration::from_secs(900));
        let middle = renewal_moment(start, end, u64::MAX / 2);
        assert!(middle > start + Duration::from_secs(749) && middle < start + Duration::from_secs(751));
    }

    #[test]
    fn a_lifetime_that_ends_before_it_begins_is_renewed_at_once() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(renewal_moment(start, SystemTime::UNIX_EPOCH, 7), start);
    }
}
