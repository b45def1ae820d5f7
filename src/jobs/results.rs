//! Reading results.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use tokio::task::spawn_blocking;

use super::access::Scope;
use super::context::Context;
use super::model::JobId;
use super::reports;
use super::store::StoreError;

/// The bytes of a result from one position up to another, piece by piece.
pub(super) fn read_result(
    context: &Arc<Context>,
    scope: &Scope,
    id: JobId,
    name: &str,
    start: u64,
    end: u64,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
    let state = (Arc::clone(context), scope.clone(), name.to_owned(), start);
    try_unfold(state, move |(context, scope, name, at)| async move {
        if at >= end {
            return Ok(None);
        }
        // In a task of its own: a body whose receiver is slow is not polled for a long time, and must not hold a connection meanwhile.
        let (shared, owner, result) = (Arc::clone(&context), scope.clone(), name.clone());
        let piece = context.tracker.spawn(async move { shared.store.piece(&owner, id, &result, at).await });
        let piece = piece.await.map_err(|error| StoreError::Output(error.to_string()))??;
        let Some(piece) = piece else {
            return Err(StoreError::Damaged(format!("{name} of job {id} ends at {at}, or is being removed")));
        };
        let text = spawn_blocking(move || reports::decompress(&piece).map(|text| (piece.start, text)));
        let (start, text) = text
            .await
            .map_err(|error| StoreError::Damaged(error.to_string()))?
            .map_err(|error| StoreError::Damaged(format!("{name} of job {id}: {error}")))?;
        // Both lie within a piece.
        let within = |position: u64| usize::try_from(position - start).unwrap_or(text.len()).min(text.len());
        let wanted = within(at)..within(end.max(start));
        let next = start + wanted.end as u64;
        Ok(Some((Bytes::from(text).slice(wanted), (context, scope, name, next))))
    })
}
