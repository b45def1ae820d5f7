//! The memory that all uploads, and what becomes of them, may take together.
//!
//! Each upload has a share, which it asks to raise before it takes memory. When there is none left, the youngest upload is interrupted; one
//! that asks waits until memory is freed, or is interrupted itself when it is the youngest. The oldest waiting one comes first. So the oldest
//! upload always goes on, unless it wants more than all.
//!
//! Two parts are set apart, so that what has been counted can always be stored: one for states that are being saved, one for results that are
//! being made. Those who need them wait in line, and hold nothing of the other part meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, FailureKind};

/// The least budget with which uploads can be served.
pub const MIN_MEMORY_BUDGET_BYTES: u64 = 64 * 1024 * 1024;

/// The parts that are set apart: each one in 16, and at least this.
const APART_SHARE: u64 = 16;
const MIN_APART_BYTES: u64 = 8 * 1024 * 1024;

/// What permits of the parts that are set apart count.
const PERMIT_BYTES: u64 = 1024;

/// The name of the limit, as a reader of the configuration knows it.
const LIMIT_NAME: &str = "memory_budget";

/// The memory that may be taken.
pub(super) struct MemoryBudget {
    max_bytes: u64,
    max_share_bytes: u64,
    apart_permits: u32,
    saving: Arc<Semaphore>,
    results: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next_number: u64,
    used_bytes: u64,
    /// By age: the oldest first.
    shares: BTreeMap<u64, Share>,
}

/// What one upload takes.
struct Share {
    kind: Kind,
    /// As it was measured last.
    settled_bytes: u64,
    /// What may be taken on top of that before it is measured again: freed then.
    growth_bytes: u64,
    is_waiting: bool,
    freed: Arc<Notify>,
    interrupted: CancellationToken,
    wants_too_much: bool,
}

/// What a share is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only for show: the first to go.
    Shown,
    /// An upload, which can be interrupted.
    Upload,
    /// What has been acknowledged: it frees its memory when its results are stored.
    Finishing,
}

impl Share {
    fn waits(&self) -> bool {
        self.is_waiting && !self.interrupted.is_cancelled()
    }

    fn bytes(&self) -> u64 {
        self.settled_bytes + self.growth_bytes
    }
}

/// There is not enough memory at the moment, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

/// Why memory is refused that is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Some will be freed, and then it is worth asking again.
    ForNow,
    /// The share is to be given up.
    Interrupted,
}

impl MemoryBudget {
    pub(super) fn new(max_bytes: u64) -> Arc<Self> {
        let apart = (max_bytes / APART_SHARE).max(MIN_APART_BYTES);
        let apart_permits = u32::try_from(apart / PERMIT_BYTES).unwrap_or(u32::MAX);
        let semaphore = || Arc::new(Semaphore::new(apart_permits as usize));
        Arc::new(Self {
            max_bytes,
            max_share_bytes: max_bytes.saturating_sub(2 * apart),
            apart_permits,
            saving: semaphore(),
            results: semaphore(),
            state: Mutex::default(),
        })
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// What is taken at the moment, with what may be taken without asking.
    pub(super) fn used_bytes(&self) -> u64 {
        let apart = |semaphore: &Semaphore| u64::from(self.apart_permits) - semaphore.available_permits() as u64;
        self.state().used_bytes + (apart(&self.saving) + apart(&self.results)) * PERMIT_BYTES
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A share of so many bytes for something that begins. It must not take from those that wait.
    pub(super) fn begin(self: &Arc<Self>, kind: Kind, bytes: u64) -> Result<MemoryShare, Exhausted> {
        let mut state = self.state();
        let is_needed = state.shares.values().any(Share::waits);
        if is_needed || state.used_bytes.saturating_add(bytes) > self.max_share_bytes {
            return Err(Exhausted);
        }
        Ok(self.add(&mut state, kind, bytes))
    }

    /// A share of nothing for what has been acknowledged.
    pub(super) fn begin_finishing(self: &Arc<Self>) -> MemoryShare {
        self.add(&mut self.state(), Kind::Finishing, 0)
    }

    fn add(self: &Arc<Self>, state: &mut State, kind: Kind, bytes: u64) -> MemoryShare {
        let number = state.next_number;
        state.next_number += 1;
        state.used_bytes += bytes;
        let (freed, interrupted) = (Arc::new(Notify::new()), CancellationToken::new());
        let share = Share {
            kind,
            settled_bytes: bytes,
            growth_bytes: 0,
            is_waiting: false,
            freed: Arc::clone(&freed),
            interrupted: interrupted.clone(),
            wants_too_much: false,
        };
        state.shares.insert(number, share);
        MemoryShare { budget: Arc::clone(self), number, freed, interrupted }
    }

    /// Waits for a part of what is set apart for states that are being saved: all of what is wanted, or all there is.
    pub(super) async fn room_to_save(&self, wanted_bytes: u64) -> Option<Apart> {
        let permits = self.permits(wanted_bytes);
        Arc::clone(&self.saving).acquire_many_owned(permits).await.ok().map(Apart)
    }

    /// The same without waiting.
    pub(super) fn try_room_to_save(&self, wanted_bytes: u64) -> Option<Apart> {
        Arc::clone(&self.saving).try_acquire_many_owned(self.permits(wanted_bytes)).ok().map(Apart)
    }

    /// Waits for a part of what is set apart for results that are being made.
    pub(super) async fn room_for_results(&self, wanted_bytes: u64) -> Option<Apart> {
        Arc::clone(&self.results).acquire_many_owned(self.permits(wanted_bytes)).await.ok().map(Apart)
    }

    fn permits(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.apart_permits)
    }

    /// What the sender of an upload is told that was interrupted, or does not begin.
    pub(super) fn exhausted(&self) -> Failure {
        let detail = "all memory for uploads is taken; try again in a moment";
        FailureKind::MemoryBudget.because(detail).with_limit(LIMIT_NAME, self.max_bytes)
    }

    /// What the sender of an upload is told that alone wants more than all may have.
    pub(super) fn exceeded(&self) -> Failure {
        let detail = "this alone takes more memory than all uploads may have; the limit is memory_budget";
        FailureKind::MemoryBudgetExceeded.because(detail).with_limit(LIMIT_NAME, self.max_bytes)
    }
}

impl State {
    /// Bytes that those before whom nobody waits are still to free: growth that will be measured, and shares that end.
    fn freed_soon(&self, except: u64) -> u64 {
        let others = self.shares.iter().filter(|(number, _)| **number != except);
        let soon = others.map(|(_, share)| {
            let ends = share.kind == Kind::Finishing || share.interrupted.is_cancelled();
            if ends { share.bytes() } else { share.growth_bytes }
        });
        soon.sum()
    }

    /// Interrupts the next share that has to go, unless that is this one or an older one.
    fn interrupt_one(&mut self, number: u64, is_finishing: bool) -> bool {
        let goes = |share: &Share, kind| share.kind == kind && !share.interrupted.is_cancelled();
        let shown = self.shares.iter().find(|(_, share)| goes(share, Kind::Shown));
        let youngest = || {
            let mut youngest_first = self.shares.iter().rev();
            let youngest = youngest_first.find(|(_, share)| goes(share, Kind::Upload))?;
            (is_finishing || *youngest.0 > number).then_some(youngest)
        };
        let Some((_, share)) = shown.or_else(youngest) else {
            return false;
        };
        share.interrupted.cancel();
        true
    }

    /// Wakes the one that is next to get memory: the order is that of [`Self::is_older_waiting`].
    fn wake_next(&self) {
        let mut waiting = self.shares.values().filter(|share| share.waits());
        let finishing = waiting.clone().find(|share| share.kind == Kind::Finishing);
        if let Some(share) = finishing.or_else(|| waiting.next()) {
            share.freed.notify_one();
        }
    }

    /// True when an older one waits. What has been acknowledged is older than all uploads.
    fn is_older_waiting(&self, number: u64) -> bool {
        let kind = self.shares.get(&number).map(|share| share.kind);
        self.shares.iter().any(|(other, share)| {
            let is_before = match (share.kind, kind) {
                (Kind::Finishing, Some(Kind::Finishing)) => *other < number,
                (Kind::Finishing, _) => true,
                (_, Some(Kind::Finishing)) => false,
                _ => *other < number,
            };
            share.waits() && is_before
        })
    }
}

/// A part of the budget, given back when this is dropped.
pub(super) struct MemoryShare {
    budget: Arc<MemoryBudget>,
    number: u64,
    freed: Arc<Notify>,
    interrupted: CancellationToken,
}

impl MemoryShare {
    /// Notes how much memory is taken now.
    pub(super) fn settle(&self, bytes: u64) {
        let mut state = self.budget.state();
        let used_bytes = state.used_bytes;
        self.set(&mut state, bytes, 0);
        // Otherwise there is nothing new for those that wait, who may be this one.
        if state.used_bytes < used_bytes {
            state.wake_next();
        }
    }

    /// Nothing is waited for any more.
    pub(super) fn stop_waiting(&self) {
        let mut state = self.budget.state();
        if let Some(share) = state.shares.get_mut(&self.number)
            && std::mem::take(&mut share.is_waiting)
        {
            state.wake_next();
        }
    }

    fn set(&self, state: &mut State, settled_bytes: u64, growth_bytes: u64) {
        let State { shares, used_bytes, .. } = state;
        if let Some(share) = shares.get_mut(&self.number) {
            *used_bytes = *used_bytes - share.bytes() + settled_bytes + growth_bytes;
            (share.settled_bytes, share.growth_bytes) = (settled_bytes, growth_bytes);
        }
    }

    /// Raises the share from what is taken now, if nobody has to give way.
    pub(super) fn try_raise(&self, now_bytes: u64, most_bytes: u64) -> Result<(), Exhausted> {
        let mut state = self.budget.state();
        self.raise(&mut state, now_bytes, most_bytes)?;
        // There may be more than this one needs.
        state.wake_next();
        Ok(())
    }

    fn raise(&self, state: &mut State, now_bytes: u64, most_bytes: u64) -> Result<(), Exhausted> {
        // What has been taken is taken.
        self.set(state, now_bytes, 0);
        let growth_bytes = most_bytes.saturating_sub(now_bytes);
        let is_free = state.used_bytes.saturating_add(growth_bytes) <= self.budget.max_share_bytes;
        if !is_free || state.is_older_waiting(self.number) {
            return Err(Exhausted);
        }
        self.set(state, now_bytes, growth_bytes);
        if let Some(share) = state.shares.get_mut(&self.number) {
            share.is_waiting = false;
        }
        Ok(())
    }

    /// Raises the share from what is taken now. When that is not possible, others are interrupted, or this one.
    pub(super) fn request(&self, now_bytes: u64, most_bytes: u64) -> Result<(), Refused> {
        let mut state = self.budget.state();
        if self.interrupted.is_cancelled() {
            return Err(Refused::Interrupted);
        }
        let raised = self.raise(&mut state, now_bytes, most_bytes);
        let kind = state.shares.get(&self.number).map(|share| share.kind);
        let is_finishing = kind == Some(Kind::Finishing);
        if let Some(share) = state.shares.get_mut(&self.number) {
            share.is_waiting = raised.is_err();
            share.wants_too_much = most_bytes > self.budget.max_share_bytes;
            // For what is only shown nobody gives way.
            if share.wants_too_much || (share.is_waiting && share.kind == Kind::Shown) {
                share.is_waiting = false;
                share.interrupted.cancel();
            }
        }
        if raised.is_ok() || self.interrupted.is_cancelled() {
            state.wake_next();
            return raised.map_err(|Exhausted| Refused::Interrupted);
        }
        // An older one comes first, and makes room.
        if state.is_older_waiting(self.number) {
            // What this one might have taken until now is free.
            state.wake_next();
            return Err(Refused::ForNow);
        }
        let growth_bytes = most_bytes.saturating_sub(now_bytes);
        let wanted = (state.used_bytes + growth_bytes).saturating_sub(self.budget.max_share_bytes);
        while state.freed_soon(self.number) < wanted {
            if !state.interrupt_one(self.number, is_finishing) {
                if let Some(share) = state.shares.get_mut(&self.number)
                    && !is_finishing
                {
                    // It is the youngest.
                    share.is_waiting = false;
                    share.interrupted.cancel();
                    state.wake_next();
                    return Err(Refused::Interrupted);
                }
                break;
            }
        }
        Err(Refused::ForNow)
    }

    /// Raises the share as soon as that is possible.
    ///
    /// # Errors
    /// Why the share is to be given up.
    pub(super) async fn raise_in_turn(&self, now_bytes: u64, most_bytes: u64) -> Result<(), Failure> {
        while let Err(refused) = self.request(now_bytes, most_bytes) {
            match refused {
                Refused::ForNow => tokio::select! {
                    () = self.freed() => {}
                    () = self.interrupted.cancelled() => {}
                },
                Refused::Interrupted => return Err(self.failure()),
            }
        }
        Ok(())
    }

    /// Raises the share, if nobody has to give way.
    ///
    /// # Errors
    /// That there is not enough.
    pub(super) fn raise_or_give_up(&self, now_bytes: u64, most_bytes: u64) -> Result<(), Failure> {
        self.try_raise(now_bytes, most_bytes).map_err(|Exhausted| {
            let is_too_much = most_bytes > self.budget.max_share_bytes;
            if is_too_much { self.budget.exceeded() } else { self.budget.exhausted() }
        })
    }

    /// How much memory was taken when it was measured last.
    pub(super) fn settled_bytes(&self) -> u64 {
        self.budget.state().shares.get(&self.number).map_or(0, |share| share.settled_bytes)
    }

    /// Resolves when memory has been freed for this share, which asked for some.
    pub(super) fn freed(&self) -> impl Future<Output = ()> + Send + use<> {
        let freed = Arc::clone(&self.freed);
        async move { freed.notified().await }
    }

    /// Cancelled when the share is to be given up.
    pub(super) fn interrupted(&self) -> &CancellationToken {
        &self.interrupted
    }

    /// Why it is to be given up, in words for its sender. Asked once.
    pub(super) fn failure(&self) -> Failure {
        let state = self.budget.state();
        let wants_too_much = state.shares.get(&self.number).is_some_and(|share| share.wants_too_much);
        let upload = if wants_too_much { "too_large" } else { "interrupted" };
        metrics::counter!("adtally_memory_refusals_total", "upload" => upload).increment(1);
        if wants_too_much { self.budget.exceeded() } else { self.budget.exhausted() }
    }

    /// What it is for has been read to its end, and is not interrupted any more. Gives false when it has been.
    pub(super) fn finish(&self) -> bool {
        let mut state = self.budget.state();
        if self.interrupted.is_cancelled() {
            return false;
        }
        if let Some(share) = state.shares.get_mut(&self.number) {
            share.kind = Kind::Finishing;
        }
        true
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        self.set(&mut state, 0, 0);
        state.shares.remove(&self.number);
        // Those who watch it have nothing more to do.
        self.interrupted.cancel();
        state.wake_next();
    }
}

/// A part of what is set apart, given back when this is dropped.
pub(super) struct Apart(OwnedSemaphorePermit);

impl Apart {
    pub(super) fn bytes(&self) -> usize {
        self.0.num_permits() * usize::try_from(PERMIT_BYTES).unwrap_or(usize::MAX)
    }

    /// Gives back what is not needed.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let needed = usize::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(usize::MAX);
        let unneeded = self.0.num_permits().saturating_sub(needed);
        drop(self.0.split(unneeded));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// 48 MiB for shares, 16 apart; two uploads that have 20 MiB each.
    fn two_uploads() -> (Arc<MemoryBudget>, MemoryShare, MemoryShare) {
        let budget = MemoryBudget::new(64 * MIB);
        let [older, younger] = [0, 1].map(|_| budget.begin(Kind::Upload, 20 * MIB).unwrap());
        (budget, older, younger)
    }

    fn is_woken(share: &MemoryShare) -> bool {
        share.freed().now_or_never().is_some()
    }

    #[test]
    fn what_finishes_is_woken_before_uploads_that_wait() {
        let (budget, older, younger) = two_uploads();
        let finishing = budget.begin_finishing();
        assert_eq!(finishing.request(0, 20 * MIB), Err(Refused::ForNow));
        assert!(younger.interrupted().is_cancelled() && !older.interrupted().is_cancelled());
        assert_eq!(older.request(20 * MIB, 21 * MIB), Err(Refused::ForNow));
        is_woken(&finishing);
        drop(younger);
        assert!(is_woken(&finishing) && !is_woken(&older));
        assert_eq!(finishing.request(0, 20 * MIB), Ok(()));
        assert!(is_woken(&older), "the next one is told");
        assert_eq!(older.request(20 * MIB, 21 * MIB), Ok(()));
    }

    #[test]
    fn one_that_waits_is_woken_only_by_memory_that_is_freed() {
        let (budget, older, younger) = two_uploads();
        assert_eq!(older.request(20 * MIB, 30 * MIB), Err(Refused::ForNow));
        older.settle(20 * MIB);
        assert!(!is_woken(&older), "it would ask again and again");
        drop(younger);
        assert!(is_woken(&older));
        assert!(budget.begin(Kind::Upload, MIB).is_err(), "nothing new begins while it waits");
        assert_eq!(older.try_raise(20 * MIB, 30 * MIB), Ok(()));
        assert!(budget.begin(Kind::Upload, MIB).is_ok(), "it waits no more");
    }

    #[test]
    fn one_that_ends_while_it_waits_is_in_nobodys_way() {
        let (budget, older, younger) = two_uploads();
        assert_eq!(older.request(20 * MIB, 30 * MIB), Err(Refused::ForNow));
        drop(younger);
        older.stop_waiting();
        assert!(budget.begin(Kind::Upload, MIB).is_ok());
    }

    #[test]
    fn one_that_never_fits_is_told_so() {
        let (_budget, older, younger) = two_uploads();
        assert_eq!(older.request(20 * MIB, 49 * MIB), Err(Refused::Interrupted));
        assert_eq!(older.failure().kind, FailureKind::MemoryBudgetExceeded);
        assert!(!younger.interrupted().is_cancelled());
    }
}
