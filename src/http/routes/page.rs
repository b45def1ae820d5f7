//! The page for browsers. Its files are in the program, and are compressed once.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};
use headers::{HeaderMapExt as _, IfNoneMatch};
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::set_field;
use crate::http::media::accepts_gzip;
use crate::http::problem::{Kind, Problem};
use crate::http::security_fields::{CROSS_ORIGIN_OPENER_POLICY, PAGE_POLICY};
use crate::jobs::fingerprint;

/// The files of the page, by the last part of their addresses.
macro_rules! assets {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_bytes!(concat!("../page/", $name)).as_slice())),+]
    };
}

const INDEX: &str = "index.html";

/// The largest window of deflate: 2^15 bytes (RFC 1951).
const MAX_WINDOW_BITS: u8 = 15;

/// Made by the first request for one of them: compressing takes some milliseconds and memory, and most clients are not browsers.
static ASSETS: OnceCell<Vec<Asset>> = OnceCell::const_new();

fn make_assets() -> Vec<Asset> {
    let files: [(&str, &[u8]); 15] = assets![
        "index.html",
        "style.css",
        "icon.svg",
        "app.js",
        "api.js",
        "dom.js",
        "guess.js",
        "job_view.js",
        "jobs_view.js",
        "leaders.js",
        "preview.js",
        "scatter.js",
        "send_view.js",
        "text.js",
        "upload.js",
    ];
    // All files use one encoder, which takes 380 KB.
    let mut encoder = Compress::new_gzip(Compression::best(), MAX_WINDOW_BITS);
    files.into_iter().map(|(name, contents)| Asset::new(name, contents, &mut encoder)).collect()
}

/// A file in both forms that it is sent in.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    plain: Form,
    /// None when it is not smaller.
    gzip: Option<Form>,
}

struct Form {
    contents: Bytes,
    etag: String,
}

/// An answer whose entity tag is that of its bytes as they are sent.
#[derive(Clone, Copy)]
pub(in crate::http) struct TaggedAsSent;

impl Asset {
    fn new(name: &'static str, contents: &'static [u8], encoder: &mut Compress) -> Self {
        let content_type = match name.rsplit_once('.') {
            Some((_, "html")) => "text/html; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            _ => "text/javascript; charset=utf-8",
        };
        let plain = Form::new(Bytes::from_static(contents));
        Self { name, content_type, plain, gzip: compress(encoder, contents).map(Form::new) }
    }
}

impl Form {
    fn new(contents: Bytes) -> Self {
        Self { etag: format!("\"{}\"", fingerprint(Sha256::digest(&contents).into())), contents }
    }
}

/// The file compressed with gzip (RFC 1952), if that is smaller.
fn compress(encoder: &mut Compress, contents: &[u8]) -> Option<Bytes> {
    encoder.reset();
    let mut compressed = Vec::with_capacity(contents.len());
    let status = encoder.compress_vec(contents, &mut compressed, FlushCompress::Finish).ok()?;
    compressed.shrink_to_fit();
    (status == Status::StreamEnd).then(|| compressed.into())
}

/// `GET /`
pub(in crate::http) async fn index(headers: HeaderMap) -> Result<Response, Problem> {
    answer(INDEX, &headers).await
}

/// `GET /page/{file}`
pub(in crate::http) async fn file(
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    match name {
        Ok(Path(name)) if name != INDEX => answer(&name, &headers).await,
        _ => Err(not_found(uri.path())),
    }
}

async fn answer(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let assets = ASSETS.get_or_try_init(|| spawn_blocking(make_assets)).await;
    let assets = assets.map_err(|error| Problem::internal(&error))?;
    let asset = assets.iter().find(|asset| asset.name == name).ok_or_else(|| not_found(name))?;
    let gzip = asset.gzip.as_ref().filter(|_| accepts_gzip(headers));
    let form = gzip.unwrap_or(&asset.plain);
    let is_known = form
        .etag
        .parse()
        .is_ok_and(|tag| headers.typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(&tag)));
    let mut response =
        if is_known { StatusCode::NOT_MODIFIED.into_response() } else { form.contents.clone().into_response() };
    response.extensions_mut().insert(TaggedAsSent);
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    // After an update the browser has the new files at once, and the others cost it a question.
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(VARY, HeaderValue::from(ACCEPT_ENCODING));
    set_field(fields, ETAG, &form.etag);
    if gzip.is_some() && !is_known {
        fields.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if asset.name == INDEX {
        fields.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
        fields.insert(CONTENT_SECURITY_POLICY, PAGE_POLICY);
    }
    Ok(response)
}

fn not_found(name: &str) -> Problem {
    Problem::new(Kind::NotFound, format!("{name:?}: the page has no such file"))
}
