//! Whose work is next: start-time fair queueing (Goyal, Vin and Cheng, 1996) between tenants, and within a tenant between its uploads.
//!
//! Each account has a virtual time, which grows by the cost of its work. The account with the least goes first; among equal ones, the work
//! that came first. The virtual time of a level is the one at which the latest work there has begun. An account that comes back is set to
//! that, so being idle saves nothing. An account that is ahead of it is remembered while it is idle, so leaving the line forgives nothing.
//!
//! The cost is the time for which work keeps a thread. Threads are what accounts share. The bytes that were sent say little of that: a
//! thousand times as much text may come out of them, and some text takes ten times as long as other text.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Idle accounts that are remembered on a level, as they have used more than others. Of more, those that have used the least are forgotten.
const MAX_IDLE_ACCOUNTS: usize = 256;

/// Who has used the threads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// None for what the service does for itself.
    pub(super) tenant: Option<Arc<str>>,
    /// The number of an upload. 0 for all other work of the tenant.
    pub(super) upload: u64,
}

/// Work in line.
pub(super) struct Turns<W> {
    tenants: Level<Option<Arc<str>>, Tenant<W>>,
    /// Work that has come so far: its number is its place among equal ones.
    arrivals: u64,
}

impl<W> Default for Turns<W> {
    fn default() -> Self {
        Self { tenants: Level::default(), arrivals: 0 }
    }
}

impl<W> Turns<W> {
    /// Puts work in line, behind what waits of the same account.
    pub(super) fn add(&mut self, account: &Account, work: W) {
        let tenant = self.tenants.arrive(account.tenant.clone());
        tenant.uploads.arrive(account.upload).waiting.push_back((self.arrivals, work));
        self.arrivals += 1;
    }

    /// Takes the work that is next. [`Self::end`] must be told when it has ended.
    pub(super) fn take(&mut self) -> Option<(Account, W)> {
        let tenant = self.tenants.first()?;
        let uploads = &mut self.tenants.begin(&tenant)?.uploads;
        let upload = uploads.first()?;
        let (_, work) = uploads.begin(&upload)?.waiting.pop_front()?;
        Some((Account { tenant, upload }, work))
    }

    /// Adds the cost of work that has ended, in any unit, to what its account has used.
    pub(super) fn end(&mut self, account: &Account, cost: u64) {
        if let Some(tenant) = self.tenants.end(&account.tenant, cost) {
            tenant.uploads.end(&account.upload, cost);
            tenant.uploads.forget_idle();
        }
        self.tenants.forget_idle();
    }
}

/// Accounts that share time equally.
struct Level<K, A> {
    /// Those that have work, or that are ahead of `now`.
    accounts: BTreeMap<K, A>,
    /// The virtual time at which the latest work has begun. No account that is idle, or the work of which has just ended, is before it.
    now: u64,
}

/// An account on one level.
trait Member: Default {
    fn usage(&self) -> Usage;
    fn usage_mut(&mut self) -> &mut Usage;
    /// The number of the work that is next. None when none waits.
    fn next_arrival(&self) -> Option<u64>;
}

#[derive(Clone, Copy, Default)]
struct Usage {
    /// The virtual time.
    time: u64,
    waiting: usize,
    running: usize,
}

impl Usage {
    fn is_idle(self) -> bool {
        self.waiting == 0 && self.running == 0
    }
}

struct Tenant<W> {
    usage: Usage,
    uploads: Level<u64, Upload<W>>,
}

struct Upload<W> {
    usage: Usage,
    /// With the number of each.
    waiting: VecDeque<(u64, W)>,
}

impl<W> Default for Tenant<W> {
    fn default() -> Self {
        Self { usage: Usage::default(), uploads: Level::default() }
    }
}

impl<W> Default for Upload<W> {
    fn default() -> Self {
        Self { usage: Usage::default(), waiting: VecDeque::new() }
    }
}

impl<W> Member for Tenant<W> {
    fn usage_mut(&mut self) -> &mut Usage {
        &mut self.usage
    }

    fn next_arrival(&self) -> Option<u64> {
        self.uploads.first_with_arrival().map(|(_, arrival)| arrival)
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}

impl<W> Member for Upload<W> {
    fn usage_mut(&mut self) -> &mut Usage {
        &mut self.usage
    }

    fn next_arrival(&self) -> Option<u64> {
        self.waiting.front().map(|(arrival, _)| *arrival)
    }

    fn usage(&self) -> Usage {
        self.usage
    }
}

impl<K, A> Default for Level<K, A> {
    fn default() -> Self {
        Self { accounts: BTreeMap::new(), now: 0 }
    }
}

impl<K: Ord + Clone, A: Member> Level<K, A> {
    /// Counts one more work that waits.
    fn arrive(&mut self, key: K) -> &mut A {
        let account = self.accounts.entry(key).or_default();
        let usage = account.usage_mut();
        if usage.is_idle() {
            usage.time = usage.time.max(self.now);
        }
        usage.waiting += 1;
        account
    }

    /// The account that goes first.
    fn first(&self) -> Option<K> {
        self.first_with_arrival().map(|(key, _)| key.clone())
    }

    fn first_with_arrival(&self) -> Option<(&K, u64)> {
        let waiting = self.accounts.iter().filter_map(|(key, account)| Some((key, account, account.next_arrival()?)));
        let first = waiting.min_by_key(|(_, account, arrival)| (account.usage().time, *arrival));
        first.map(|(key, _, arrival)| (key, arrival))
    }

    /// Counts work that waited as running.
    fn begin(&mut self, key: &K) -> Option<&mut A> {
        let account = self.accounts.get_mut(key)?;
        let usage = account.usage_mut();
        usage.waiting -= 1;
        usage.running += 1;
        self.now = self.now.max(usage.time);
        Some(account)
    }

    /// Counts work as ended.
    fn end(&mut self, key: &K, cost: u64) -> Option<&mut A> {
        let account = self.accounts.get_mut(key)?;
        let usage = account.usage_mut();
        usage.running -= 1;
        // Others may have come further meanwhile on other threads, as this account had no more work for them: that saves nothing either.
        usage.time = usage.time.saturating_add(cost).max(self.now);
        Some(account)
    }

    /// Forgets idle accounts about which there is nothing to be known.
    fn forget_idle(&mut self) {
        if self.accounts.values().all(|account| account.usage().is_idle()) {
            // All are equal again: there is none that one of them could be ahead of.
            *self = Self::default();
            return;
        }
        let now = self.now;
        let mut idle = 0;
        self.accounts.retain(|_, account| {
            let usage = account.usage();
            let is_kept = !usage.is_idle() || usage.time > now;
            idle += usize::from(is_kept && usage.is_idle());
            is_kept
        });
        // Work ends one by one, so there is at most one too many.
        if idle > MAX_IDLE_ACCOUNTS {
            let idle = self.accounts.iter().filter(|(_, account)| account.usage().is_idle());
            let least = idle.min_by_key(|(_, account)| account.usage().time).map(|(key, _)| key.clone());
            least.and_then(|least| self.accounts.remove(&least));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn account(tenant: &str, upload: u64) -> Account {
        Account { tenant: Some(tenant.into()), upload }
    }

    /// Runs `count` turns in which every account always has more work, each piece at the cost given for the account. Returns the total cost of each
    /// account.
    fn share(turns: &mut Turns<u64>, works: &[(Account, u64)], count: usize) -> Vec<u64> {
        for (account, cost) in works {
            turns.add(account, *cost);
        }
        let mut used = vec![0; works.len()];
        for _ in 0..count {
            let (account, cost) = turns.take().unwrap();
            // It waits again ahead of the end of its work, as an upload does that gives way.
            turns.add(&account, cost);
            turns.end(&account, cost);
            used[works.iter().position(|(known, _)| *known == account).unwrap()] += cost;
        }
        used
    }

    fn accounts_of(turns: &Turns<u64>) -> usize {
        turns.tenants.accounts.values().map(|tenant| 1 + tenant.uploads.accounts.len()).sum()
    }

    #[test]
    fn tenants_get_the_same_with_one_upload_and_with_ten() {
        let mut works = vec![(account("one", 1), 7)];
        works.extend((1..=10).map(|upload| (account("ten", upload), 5)));
        let used = share(&mut Turns::default(), &works, 1000);
        let of_ten = used[1..].iter().sum::<u64>();
        assert!(used[0].abs_diff(of_ten) <= 12, "{} and {of_ten}", used[0]);
        assert!(used[1..].iter().all(|used| used.abs_diff(of_ten / 10) <= 10), "{used:?}");
    }

    #[test]
    fn a_heavy_upload_leaves_a_light_one_its_share() {
        let works = [(account("a", 1), 1000), (account("a", 2), 1)];
        let used = share(&mut Turns::default(), &works, 5000);
        assert!(used[0].abs_diff(used[1]) <= 1000, "{used:?}");
    }

    /// Simulates `threads` threads until the time `end`, with uploads that always have more work. Returns for how long each has had a thread.
    fn simulate(threads: usize, works: &[(Account, u64)], end: u64) -> Vec<u64> {
        let mut turns = Turns::default();
        for (account, cost) in works {
            turns.add(account, *cost);
        }
        let mut used = vec![0; works.len()];
        let mut running: Vec<_> =
            (0..threads).map_while(|_| turns.take()).map(|(account, cost)| (cost, account, cost)).collect();
        loop {
            running.sort_by_key(|(ends, ..)| std::cmp::Reverse(*ends));
            let (now, account, cost) = running.pop().unwrap();
            if now > end {
                return used;
            }
            used[works.iter().position(|(known, _)| *known == account).unwrap()] += cost;
            turns.add(&account, cost);
            turns.end(&account, cost);
            while running.len() < threads
                && let Some((account, cost)) = turns.take()
            {
                running.push((now + cost, account, cost));
            }
        }
    }

    #[test]
    fn long_turns_on_one_thread_cost_no_more_than_short_ones_on_the_others() {
        let mut works = vec![(account("one", 1), 10)];
        works.extend((1..=10).map(|upload| (account("ten", upload), 1)));
        let used = simulate(1, &works, 10_000);
        let of_ten = used[1..].iter().sum::<u64>();
        assert!(used[0].abs_diff(of_ten) <= 20, "{used:?}");
        // It uses no more than one thread, which is no more than its share: between its turns it waits for at most one turn of another.
        for threads in [2, 8] {
            let used = simulate(threads, &works, 10_000);
            assert!(used[0] >= 9_000, "{threads} threads: {used:?}");
        }
    }

    #[test]
    fn being_idle_saves_nothing() {
        let mut turns = Turns::default();
        share(&mut turns, &[(account("busy", 1), 10)], 100);
        // Without the line's time, the newcomer would be first a hundred times.
        let used = share(&mut turns, &[(account("new", 1), 10)], 0);
        assert_eq!(used, [0]);
        let mut taken = Vec::new();
        for _ in 0..6 {
            let (account, cost) = turns.take().unwrap();
            turns.add(&account, cost);
            turns.end(&account, cost);
            taken.push(account.tenant.unwrap().to_string());
        }
        assert_eq!(taken.iter().filter(|tenant| **tenant == "new").count(), 3, "{taken:?}");
    }

    #[test]
    fn leaving_the_line_forgives_nothing() {
        let mut turns = Turns::default();
        let (steady, leaving) = (account("steady", 1), account("leaving", 1));
        turns.add(&leaving, 100);
        turns.add(&steady, 1);
        let mut used = HashMap::new();
        for _ in 0..1000 {
            let (account, cost) = turns.take().unwrap();
            turns.end(&account, cost);
            *used.entry(account.tenant.clone()).or_insert(0) += cost;
            // Only now it waits again.
            turns.add(&account, cost);
        }
        assert!(used[&steady.tenant].abs_diff(used[&leaving.tenant]) <= 100, "{used:?}");
    }

    #[test]
    fn the_first_of_equal_ones_goes_first() {
        let mut turns = Turns::default();
        let order = [("b", 2), ("a", 1), ("a", 1), ("c", 0), ("a", 3), ("b", 2)];
        for (number, (tenant, upload)) in (0..).zip(order) {
            turns.add(&account(tenant, upload), number);
        }
        let taken: Vec<_> = std::iter::from_fn(|| turns.take().map(|(_, number)| number)).collect();
        assert_eq!(taken, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn accounts_vanish_with_their_work() {
        let mut turns = Turns::default();
        for upload in 0..100 {
            turns.add(&account("a", upload % 7), 10 + upload);
            turns.add(&Account::default(), 10);
        }
        assert_eq!(accounts_of(&turns), 1 + 7 + 2);
        while let Some((account, cost)) = turns.take() {
            turns.end(&account, cost);
        }
        assert_eq!(accounts_of(&turns), 0);
    }

    #[test]
    fn newcomers_that_never_come_back_take_little_memory() {
        let mut turns = Turns::default();
        // One that runs on, so that the line is never empty.
        turns.add(&account("a", 0), 1);
        let _running = turns.take();
        for upload in 1..5000 {
            turns.add(&account("a", upload), 10);
            turns.add(&account(&upload.to_string(), 1), 10);
            for _ in 0..2 {
                let (account, cost) = turns.take().unwrap();
                turns.end(&account, cost);
            }
            assert!(accounts_of(&turns) <= MAX_IDLE_ACCOUNTS + 5);
        }
        // They came to this: those of the tenant that has work are remembered, all of them being ahead of the newcomers.
        assert!(accounts_of(&turns) > MAX_IDLE_ACCOUNTS);
    }

    proptest! {
        /// Start-time fair queueing promises: of two accounts that always have work, neither gets ahead by more than one work of each.
        #[test]
        fn no_account_gets_ahead(costs in prop::collection::vec((0..4_u8, 0..3_u64, 1..50_u64), 2..12), threads in 1..4_usize) {
            let mut turns = Turns::default();
            let mut most = HashMap::new();
            for (tenant, upload, cost) in costs {
                let account = account(&tenant.to_string(), upload);
                let most: &mut u64 = most.entry(account.tenant.clone()).or_default();
                *most = (*most).max(cost);
                // Enough of it for each thread.
                (0..threads).for_each(|_| turns.add(&account, cost));
            }
            let mut used: HashMap<_, u64> = most.keys().map(|tenant| (tenant.clone(), 0)).collect();
            let mut running = VecDeque::new();
            for _ in 0..500 {
                while running.len() < threads {
                    running.push_back(turns.take().unwrap());
                }
                let (account, cost) = running.pop_front().unwrap();
                turns.add(&account, cost);
                turns.end(&account, cost);
                *used.get_mut(&account.tenant).unwrap() += cost;
                for (tenant, used_by_it) in &used {
                    let ahead = used_by_it.saturating_sub(used[&account.tenant]);
                    prop_assert!(ahead <= (threads as u64 + 1) * (most[tenant] + most[&account.tenant]));
                }
            }
        }

        /// Every piece of work is taken exactly once, and pieces of the same account in the order in which they came.
        #[test]
        fn all_work_is_taken_once(steps in prop::collection::vec((0..3_u8, 0..4_u8, 0..3_u64, 0..20_u64), 1..200)) {
            let mut turns = Turns::default();
            let (mut added, mut taken, mut running) = (Vec::new(), Vec::new(), VecDeque::new());
            for (number, (step, tenant, upload, cost)) in (0..).zip(steps) {
                let account = account(&tenant.to_string(), upload);
                match step {
                    0 => {
                        turns.add(&account, number);
                        added.push((account, number));
                    }
                    1 => running.extend(turns.take()),
                    _ => if let Some((account, number)) = running.pop_front() {
                        turns.end(&account, cost);
                        taken.push((account, number));
                    },
                }
            }
            running.extend(std::iter::from_fn(|| turns.take()));
            while let Some((account, number)) = running.pop_front() {
                turns.end(&account, 1);
                taken.push((account, number));
            }
            prop_assert_eq!(accounts_of(&turns), 0);
            // Stable: work of one account stays in the order in which it was taken.
            let by_account = |(account, _): &(Account, u64)| (account.tenant.clone(), account.upload);
            taken.sort_by_key(by_account);
            added.sort_by_key(by_account);
            prop_assert_eq!(taken, added);
        }
    }
}
