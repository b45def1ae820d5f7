//! New jobs from the body of a request: a file as it is, or a form with files.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest as _, Multipart, Path, Request};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use encoding_rs::WINDOWS_1252;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use mailparse::parse_content_disposition;
use mime::Mime;
use serde::Deserialize;

use crate::http::app::App;
use crate::http::body::{BodyLimits, FormBody, UnparsedBytes, UploadBody, form_source, too_large};
use crate::http::caller::Caller;
use crate::http::conditions::{Precondition, must_create};
use crate::http::digests::{Digests, digest_failure};
use crate::http::fields::{idempotency_key, length_of_whole};
use crate::http::media::{Media, content_coding, file_media, media};
use crate::http::name::check_name;
use crate::http::problem::{JobTag, Kind, Problem, json_line};
use crate::http::query::{JOB_OPTIONS, Query, job_options, options_of_json};
use crate::http::routes::set_field;
use crate::http::view::{JobView, path};
use crate::jobs::{
    Begun, Failure, FailureKind, FileFormat, FileOptions, FormUpload, Job, JobError, JobOptions, NewJob, hex,
};

pub(super) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// `PUT /v1/jobs` and `PUT /v1/jobs/`
pub(in crate::http) async fn put_unnamed(app: App, request: Request) -> Result<Response, Problem> {
    receive_file(app, request, None, &JOB_OPTIONS).await
}

/// `PUT /v1/jobs/{job}`
pub(in crate::http) async fn put_named(
    app: App,
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(name) = name?;
    receive_file(app, request, Some(name), &JOB_OPTIONS).await
}

/// `POST /v1/jobs`
pub(in crate::http) async fn post(app: App, request: Request) -> Result<Response, Problem> {
    let known: Vec<_> = JOB_OPTIONS.into_iter().chain(["name"]).collect();
    match media(request.headers())? {
        Media::File(_) => {
            let name = Query::read(request.uri(), &known)?.text("name").map(str::to_owned);
            receive_file(app, request, name, &known).await
        }
        Media::Form => Box::pin(receive_form(app, request, &known)).await,
        Media::Json => open_job(app, request).await,
    }
}

/// The most bytes of a JSON document.
const MAX_JSON_BYTES: usize = 64 * 1024;

/// A job to be opened.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenJob {
    name: Option<String>,
    /// An object: as a structure, an array would do, too.
    #[serde(default)]
    options: serde_json::Map<String, serde_json::Value>,
}

/// Makes a job that takes files until it is completed.
async fn open_job(app: App, request: Request) -> Result<Response, Problem> {
    Query::read(request.uri(), &[])?;
    let headers = request.headers().clone();
    check_if_match(&headers)?;
    let invalid = |error: &dyn std::fmt::Display| {
        let expected = "expected {\"name\": …, \"options\": {\"delimiter\": …, \"has_header\": …, …}}";
        Problem::new(Kind::InvalidBody, format!("{error}; {expected}, each member optional"))
    };
    let mut pieces = UploadBody::of_document(request, app.body_limits());
    let mut body = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if body.len() + piece.len() > MAX_JSON_BYTES {
            return Err(invalid(&format_args!("more than {MAX_JSON_BYTES} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(invalid(&"an array"));
    }
    let OpenJob { name, options } = serde_json::from_slice(&body).map_err(|error| invalid(&error))?;
    let options = job_options(&options_of_json(options).map_err(|error| invalid(&error))?, None)?;
    let new = NewJob { bytes_expected: None, ..new_job(&app, &headers, name, options)? };
    Ok(match app.jobs.open_job(new).await? {
        Begun::New(job) => created(&app.caller, &job),
        Begun::Before(job) => replay(&app.caller, &job),
    })
}

/// Takes the body for a file.
async fn receive_file(
    app: App,
    request: Request,
    name: Option<String>,
    known_options: &[&str],
) -> Result<Response, Problem> {
    // What can be refused is refused before the first byte is asked for.
    let query = Query::read(request.uri(), known_options)?;
    let headers = request.headers();
    check_if_match(headers)?;
    let content_type = file_media(headers)?;
    let digests = Digests::read(headers)?;
    let coding = content_coding(headers)?;
    let length = length_of_whole(headers)?;
    let options = job_options(&query, content_type.as_ref())?;
    let new = new_job(&app, headers, name, options.clone())?;
    let format = FileFormat { options, coding, with_digest: digests.are_wanted() };
    let file = FileOptions { name: new.name(), format, length, sha256: digests.expected(), metadata: None };
    let mut upload = match app.jobs.begin(new, file).await? {
        Begun::New(upload) => upload,
        Begun::Before(job) => return Ok(replay(&app.caller, &job)),
    };
    let limits = BodyLimits { bytes_to_come: length, ..app.body_limits() };
    let mut body = UploadBody::new(request, limits, upload.stopped());
    let received = async move {
        let read = async {
            let digest = upload.read_whole(&mut body).await?;
            digests.check(body.trailers(), digest).map_err(digest_failure)
        };
        match read.await {
            Ok(()) => upload.finish().await,
            Err(failure) => Err(upload.fail(failure).await),
        }
    };
    Ok(created(&app.caller, &*app.jobs.outlive(received).await?))
}

/// Takes every file in a form.
async fn receive_form(app: App, request: Request, known_options: &[&str]) -> Result<Response, Problem> {
    let uri = request.uri().clone();
    let query = Query::read(&uri, known_options)?;
    let headers = request.headers().clone();
    check_if_match(&headers)?;
    if let Some(coding) = content_coding(&headers)? {
        return Err(Problem::unsupported_content_coding(&format!("{} of a whole form", coding.name())));
    }
    if Digests::read(&headers)?.are_wanted() {
        let detail = "the digest of a whole form is not verified: send the file itself, as `curl -T` does";
        return Err(Problem::new(Kind::InvalidHeader, detail));
    }
    let name = query.text("name").map(str::to_owned);
    let new = new_job(&app, &headers, name, job_options(&query, None)?)?;
    let mut upload = match app.jobs.begin_form(new).await? {
        Begun::New(upload) => upload,
        Begun::Before(job) => return Ok(replay(&app.caller, &job)),
    };
    let limits = app.body_limits();
    let stopped = upload.stopped();
    let unparsed = UnparsedBytes::default();
    // Without them the form's reader has a limit of its own.
    let extensions = request.extensions().clone();
    let mut body = FormBody::new(UploadBody::new(request, limits, stopped));
    let mut request = Request::new(Body::from_stream(form_source(body.clone(), unparsed.clone())));
    (*request.headers_mut(), *request.extensions_mut()) = (headers, extensions);
    let (jobs, caller, query) = (app.jobs.clone(), app.caller.clone(), query.into_owned());
    let received = async move {
        let read = async {
            receive_parts(&app, request, &query, &unparsed, &mut upload).await?;
            // Nothing is complete before the body is.
            while let Some(piece) = body.next().await {
                piece?;
            }
            Ok(())
        };
        match read.await {
            Ok(()) => upload.finish().await,
            Err(failure) => Err(upload.fail(failure).await),
        }
    };
    Ok(created(&caller, &*jobs.outlive(received).await?))
}

/// Reads every file of a form.
async fn receive_parts(
    app: &App,
    request: Request,
    query: &Query<'_>,
    unparsed: &UnparsedBytes,
    upload: &mut FormUpload,
) -> Result<(), Failure> {
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|rejection| FailureKind::MalformedForm.because(rejection.body_text()))?;
    let mut query = Cow::Borrowed(query);
    let mut parts = 0;
    let mut files = 0;
    while let Some(part) = form.next_field().await.map_err(|error| form_failure(&error))? {
        unparsed.clear();
        parts += 1;
        let max_form_parts = app.config.max_form_parts;
        if parts > max_form_parts {
            let detail = format!("the form has more than {max_form_parts} parts; the limit is max_form_parts");
            return Err(FailureKind::FormTooLarge.because(detail).with_limit("max_form_parts", max_form_parts as u64));
        }
        let file_name = file_name(&part)?;
        let option = part.name().filter(|name| file_name.is_none() && JOB_OPTIONS.contains(name)).map(str::to_owned);
        let content_type = part.content_type().and_then(|text| text.parse::<Mime>().ok());
        let mut bytes = part_bytes(part, unparsed).boxed();
        let is_file = file_name.is_some();
        if let Some(file_name) = file_name.filter(|name| !name.is_empty()) {
            if files == 0 && matches!(query, Cow::Owned(_)) {
                upload.set_options(form_options(&query, None)?).await?;
            }
            files += 1;
            let name = file_part_name(&file_name)?;
            let options = form_options(&query, content_type.as_ref())?;
            let file = FileOptions {
                name,
                format: FileFormat { options, ..FileFormat::default() },
                length: None,
                sha256: None,
                metadata: None,
            };
            upload.read_file(file, &mut bytes).await?;
        } else if let Some(option) = option {
            if files > 0 {
                return Err(FailureKind::InvalidOption.because(format!("{option}: expected it before the first file")));
            }
            let value = option_value(&option, &mut bytes).await?;
            query
                .to_mut()
                .add(option, value)
                .map_err(|problem| FailureKind::InvalidOption.because(problem.detail()))?;
        } else {
            while let Some(piece) = bytes.next().await {
                let piece = piece?;
                // Where no file was chosen, browsers send an empty one without a name.
                if is_file && !piece.is_empty() {
                    file_part_name("")?;
                }
            }
        }
    }
    if files == 0 {
        let detail = "expected a part with a file name, as `curl -F file=@ad_data.csv` sends it";
        return Err(FailureKind::FormWithoutFile.because(detail));
    }
    Ok(())
}

/// The options that a query and the fields of a form give to a file.
fn form_options(query: &Query<'_>, content_type: Option<&Mime>) -> Result<JobOptions, Failure> {
    job_options(query, content_type).map_err(|problem| {
        let is_option = problem.kind() == Kind::InvalidOption;
        let kind = if is_option { FailureKind::InvalidOption } else { FailureKind::MalformedForm };
        kind.because(problem.detail())
    })
}

/// The most bytes of an option in a form.
const MAX_OPTION_BYTES: usize = 8 * 1024;

/// Reads an option that is a field of a form.
async fn option_value(
    option: &str,
    pieces: &mut (impl Stream<Item = Result<Bytes, Failure>> + Unpin),
) -> Result<String, Failure> {
    let invalid = |reason: &str| FailureKind::InvalidOption.because(format!("{option}: {reason}"));
    let mut value = Vec::new();
    while let Some(piece) = pieces.next().await {
        value.extend_from_slice(&piece?);
        if value.len() > MAX_OPTION_BYTES {
            return Err(invalid(&format!("expected at most {MAX_OPTION_BYTES} bytes")));
        }
    }
    String::from_utf8(value).map_err(|_| invalid("expected UTF-8"))
}

/// The name by which a part is a file. Beside the form that RFC 7578 has, senders use `filename*=` (RFC 5987), capitals, and text in
/// other encodings than UTF-8, which is taken for Windows-1252 then.
fn file_name(part: &Field<'_>) -> Result<Option<String>, Failure> {
    let Some(disposition) = part.headers().get(CONTENT_DISPOSITION).map(HeaderValue::as_bytes) else {
        return Ok(None);
    };
    let disposition = match std::str::from_utf8(disposition) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => WINDOWS_1252.decode_without_bom_handling(disposition).0,
    };
    let name = parse_content_disposition(&disposition).params.remove("filename");
    if name.as_ref().is_some_and(|name| name.contains(char::REPLACEMENT_CHARACTER))
        && !disposition.contains(char::REPLACEMENT_CHARACTER)
    {
        // `filename*=` with bytes that its charset does not have.
        return Err(FailureKind::InvalidName.because("the name of a file is not in the charset that it names"));
    }
    Ok(name)
}

fn part_bytes<'a>(
    part: Field<'a>,
    unparsed: &'a UnparsedBytes,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send + 'a {
    unfold(part, |mut part| async {
        let piece = part.chunk().await.map_err(|error| form_failure(&error)).transpose()?;
        unparsed.clear();
        Some((piece, part))
    })
}

/// Some senders give a whole path.
fn file_part_name(file_name: &str) -> Result<String, Failure> {
    let name = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
    match check_name(name) {
        Ok(()) => Ok(name.into()),
        Err(reason) => Err(FailureKind::InvalidName.because(reason)),
    }
}

/// What the body itself says is inside what the form's reader says.
fn form_failure(error: &MultipartError) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return failure.clone();
        }
        source = error.source();
    }
    let detail = format!(
        "{}; expected parts between lines of -- and the boundary, and -- behind the last of these (RFC 7578)",
        error.body_text()
    );
    FailureKind::MalformedForm.because(detail)
}

/// Refuses every `If-Match`: these requests always make a job anew, and what is not there yet matches nothing, not even `*` (RFC 9110, 13.1.1).
fn check_if_match(headers: &HeaderMap) -> Result<(), Problem> {
    Precondition::read(headers)?.check_existence(false)
}

/// A job as the request asks for it, unless it asks too much.
fn new_job(app: &App, headers: &HeaderMap, name: Option<String>, options: JobOptions) -> Result<NewJob, Problem> {
    let bytes_expected = length_of_whole(headers)?;
    if let Some(name) = &name {
        check_name(name).map_err(|reason| Problem::new(Kind::InvalidName, reason))?;
    }
    let max_upload_bytes = app.config.max_upload_bytes;
    if bytes_expected.is_some_and(|length| length > max_upload_bytes) {
        return Err(too_large(max_upload_bytes).into());
    }
    let sha256 = Digests::read(headers)?.expected().map(hex);
    let idempotency_key = idempotency_key(headers)?;
    let needs_free_name = must_create(headers)?;
    Ok(NewJob { name, needs_free_name, options, idempotency_key, bytes_expected, sha256, ..NewJob::default() })
}

fn job_document(caller: &Caller, job: &Job) -> Response {
    match json_line(&JobView::new(job, caller)) {
        Ok(document) => ([(CONTENT_TYPE, "application/json")], document).into_response(),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

fn created(caller: &Caller, job: &Job) -> Response {
    let mut response = job_document(caller, job);
    *response.status_mut() = StatusCode::CREATED;
    set_location(&mut response, job);
    response
}

/// The answer to a job that was created before with the same key: the same again.
fn replay(caller: &Caller, job: &Job) -> Response {
    let mut response = match &job.details.error {
        Some(failure) => Problem::from(JobError::Failed { id: job.id, failure: failure.clone() }).into_response(),
        None => job_document(caller, job),
    };
    response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    set_location(&mut response, job);
    response
}

fn set_location(response: &mut Response, job: &Job) {
    set_field(response.headers_mut(), LOCATION, &path(job.id));
    response.extensions_mut().insert(JobTag(job.id));
}
