//! How long the sender of a body may keep it waiting.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::jobs::{Failure, FailureKind};

/// How slowly a sender may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct PaceLimits {
    /// The longest silence.
    pub(super) idle_timeout: Duration,
    /// Bytes a second; 0 is no limit.
    pub(super) min_receive_rate: u64,
    /// How long a sender may be waited for beyond what its bytes pay for.
    pub(super) receive_grace: Duration,
}

/// Measures how long a sender is waited for. Only time counts during which its bytes are asked for and none are there: a sender that the
/// parser or the store holds back is not slow.
pub(super) struct Pace {
    account: TimeAccount,
    received_bytes: u64,
    /// One timer for the whole body, set anew only when it goes off before the deadline. None before the first wait.
    timer: Option<Pin<Box<Sleep>>>,
}

/// The minimum rate as an account of time. Waiting takes from it, each byte adds the time that it may take at the minimum rate, and the
/// account never holds more than the grace time, with which it starts. So short interruptions do no harm, and bytes that came
/// long ago do not pay for trickling now.
struct TimeAccount {
    limits: PaceLimits,
    left: Duration,
    /// None while nothing is waited for.
    waiting_since: Option<Instant>,
}

impl TimeAccount {
    fn new(limits: PaceLimits) -> Self {
        Self { limits, left: limits.receive_grace, waiting_since: None }
    }

    fn received(&mut self, bytes: usize, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(now - since);
        }
        let PaceLimits { min_receive_rate, receive_grace, .. } = self.limits;
        if min_receive_rate > 0 && self.left < receive_grace {
            let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(min_receive_rate);
            let paid = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
            self.left = self.left.saturating_add(paid).min(receive_grace);
        }
    }

    /// True when the rate is exceeded ahead of the idle time-out.
    fn is_rate_first(&self) -> bool {
        self.limits.min_receive_rate > 0 && self.left < self.limits.idle_timeout
    }

    /// When the sender, which is waited for now, has been waited for too long.
    fn deadline(&mut self, now: Instant) -> Instant {
        let longest = if self.is_rate_first() { self.left } else { self.limits.idle_timeout };
        *self.waiting_since.get_or_insert(now) + longest
    }
}

impl Pace {
    pub(super) fn new(limits: PaceLimits) -> Self {
        Self { account: TimeAccount::new(limits), received_bytes: 0, timer: None }
    }

    /// All bytes that have come.
    pub(super) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Records that something has come, which may be no bytes.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
        self.account.received(bytes, Instant::now());
    }

    /// Waits for the sender. Ready when it has been waited for too long.
    pub(super) fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<Failure> {
        let deadline = self.account.deadline(Instant::now());
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() < deadline {
                timer.as_mut().reset(deadline);
                continue;
            }
            return Poll::Ready(if self.account.is_rate_first() { self.too_slow() } else { self.silent() });
        }
        Poll::Pending
    }

    fn silent(&self) -> Failure {
        let (seconds, bytes) = (self.account.limits.idle_timeout.as_secs(), self.received_bytes);
        let detail =
            format!("nothing came for {seconds} seconds after {bytes} bytes; the limit is idle_timeout_seconds");
        FailureKind::SenderStalled.because(detail).with_limit("idle_timeout_seconds", seconds)
    }

    fn too_slow(&self) -> Failure {
        let PaceLimits { min_receive_rate, receive_grace, .. } = self.account.limits;
        let (bytes, grace) = (self.received_bytes, receive_grace.as_secs());
        let detail = format!(
            "the sender was too slow after {bytes} bytes: expected {min_receive_rate} bytes a second, and was waited for {grace} \
             seconds longer; the limit is min_receive_rate_bytes"
        );
        FailureKind::SenderTooSlow.because(detail).with_limit("min_receive_rate_bytes", min_receive_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(min_receive_rate: u64) -> TimeAccount {
        let idle_timeout = Duration::from_mins(1);
        TimeAccount::new(PaceLimits { idle_timeout, min_receive_rate, receive_grace: Duration::from_secs(30) })
    }

    /// Sends so many bytes every so many seconds. Gives the seconds after which the sender is stopped, within an hour.
    fn send(account: &mut TimeAccount, bytes: usize, seconds: u64) -> Option<u64> {
        let begin = Instant::now();
        let mut now = begin;
        while now - begin < Duration::from_hours(1) {
            let deadline = account.deadline(now);
            now += Duration::from_secs(seconds);
            if deadline < now {
                return Some((deadline - begin).as_secs());
            }
            account.received(bytes, now);
        }
        None
    }

    #[test]
    fn a_sender_may_be_as_slow_as_the_rate_and_interrupted_as_long_as_the_grace() {
        assert_eq!(send(&mut account(100), 100, 1), None);
        assert_eq!(send(&mut account(100), 2900, 29), None);
        assert_eq!(send(&mut account(100), 1, 31), Some(30));
        // Half of the rate uses the grace up at half of its speed.
        assert_eq!(send(&mut account(100), 50, 1), Some(59));
        // No bytes pay for nothing, and many not for longer than the grace.
        assert_eq!(send(&mut account(100), 0, 1), Some(30));
        let mut paid = account(100);
        paid.received(1_000_000, Instant::now());
        assert_eq!(send(&mut paid, 0, 1), Some(30));
    }

    #[test]
    fn without_a_rate_only_silence_counts() {
        assert_eq!(send(&mut account(0), 1, 59), None);
        assert_eq!(send(&mut account(0), 1, 61), Some(60));
    }

    #[test]
    fn time_in_which_nothing_is_asked_for_does_not_count() {
        let mut account = account(100);
        let begin = Instant::now();
        for number in 0..100 {
            account.received(1, begin + Duration::from_secs(25 * number));
        }
        assert_eq!(account.left, Duration::from_secs(30));
    }
}
