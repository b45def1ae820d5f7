//! What a store reaches for a tenant: its own jobs, by id and by name, and what belongs to them.

use adtally::jobs::store::{ChangedBy, FinishingBegun, JobClosed, OpenedFile, ResumedFile};
use adtally::jobs::{FileFormat, Job, JobFile, JobFilter, Scope, State};

use crate::store::{Database, KEEP, receiving, succeed};

#[tokio::test]
async fn jobs_of_other_tenants_are_not_reached() {
    let database = Database::sqlite();
    let store = database.open().await;
    let [mine, yours] = ["we", "you"].map(|tenant| Scope::Tenant(tenant.into()));
    let job = Job { tenant: "we".into(), ..receiving("job") };
    store.insert(&job, None).await.unwrap();
    let done = succeed(&store, &job).await;
    let open = Job { tenant: "we".into(), state: State::Open, closes_itself: false, ..receiving("open") };
    store.insert(&open, None).await.unwrap();
    let newer = Job { tenant: "you".into(), ..receiving("job") };
    store.insert(&newer, None).await.unwrap();
    let everything = JobFilter { limit: 9, ..JobFilter::default() };
    let named = JobFilter { name: Some("job".into()), state: Some(State::Succeeded), ..everything.clone() };
    for (scope, is_reached, newest, jobs) in
        [(&mine, true, &done, 2), (&yours, false, &newer, 1), (&Scope::All, true, &newer, 3)]
    {
        assert_eq!(store.job(scope, done.id).await.unwrap().is_some(), is_reached);
        assert_eq!(store.newest_named(scope, "job").await.unwrap().as_ref(), Some(newest));
        assert_eq!(store.list(scope, &everything).await.unwrap().jobs.len(), jobs);
        assert_eq!(store.list(scope, &named).await.unwrap().jobs.len(), usize::from(is_reached));
        assert_eq!(store.result(scope, done.id, "a.csv").await.unwrap().is_some(), is_reached);
        assert_eq!(store.piece(scope, done.id, "a.csv", 120).await.unwrap().is_some(), is_reached);
    }
    let file = JobFile::begin("a", FileFormat::default(), None);
    let gone = OpenedFile::Closed(JobClosed::Gone);
    assert_eq!(store.open_file(&yours, open.id, &file, ChangedBy::Others, 9, KEEP).await.unwrap(), gone);
    let resumed = store.resume_file(&yours, open.id, "a", 0, KEEP).await.unwrap();
    assert_eq!(resumed, ResumedFile::Closed(JobClosed::Gone));
    assert_eq!(store.delete_file(&yours, open.id, "a", KEEP).await.unwrap(), Err(JobClosed::Gone));
    let finishing = store.begin_finishing(&yours, open.id, ChangedBy::Others).await.unwrap();
    assert_eq!(finishing, FinishingBegun::Closed(JobClosed::Gone));
    assert!(!store.delete(&yours, done.id).await.unwrap());
    store.expire(done.expires_at.unwrap()).await.unwrap();
    for (scope, was_there) in [(&mine, true), (&yours, false), (&Scope::All, true)] {
        assert_eq!(store.has_expired(scope, done.id).await.unwrap(), was_there);
    }
}
