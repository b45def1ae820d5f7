//! What the parts of an upload say of their memory is what the allocator has given them, and what they ask for ahead is enough.
#![expect(unsafe_code, reason = "an allocator that counts")]
#![expect(clippy::unwrap_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use adtally::engine::TallyOptions;
use adtally::ingest::{Coding, FileProgress, Growth, LaneObserver, Pipeline, PipelineOptions, Workers, receive};
use bytes::Bytes;
use futures_util::stream;

/// Counts what is allocated, and the most since that was asked last.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn add(bytes: usize) {
    PEAK.fetch_max(NOW.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
}

fn subtract(bytes: usize) {
    NOW.fetch_sub(bytes, Ordering::SeqCst);
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        subtract(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // The old and the new one at once, as when it has to be copied.
        add(new_size);
        // SAFETY: as above.
        let memory = unsafe { System.realloc(memory, layout, new_size) };
        subtract(layout.size());
        memory
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is not counted: tasks, batches, the buffers of the workers, and the test itself.
const SLACK_BYTES: usize = 2 * 1024 * 1024;

/// Compares what a pipeline says with what the allocator has given.
struct Comparing {
    before: usize,
    permitted: Mutex<Option<usize>>,
    wrong: Mutex<Vec<String>>,
    last_bytes: AtomicUsize,
    /// Memory that the allocator does not see: zstd has one of its own.
    unseen: bool,
}

impl Comparing {
    fn check_peak(&self, next: Option<usize>) {
        let peak = PEAK.load(Ordering::SeqCst).saturating_sub(self.before);
        let mut permitted = self.permitted.lock().unwrap();
        if let Some(most) = *permitted
            && peak > most + SLACK_BYTES
        {
            self.wrong.lock().unwrap().push(format!("at most {most} bytes were permitted, {peak} were taken"));
        }
        *permitted = next;
        PEAK.store(NOW.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl LaneObserver for Comparing {
    fn permit(&self, growth: Growth) -> bool {
        self.check_peak(Some(growth.most_bytes));
        true
    }

    fn batch_read(&self, pipeline: &mut Pipeline) {
        self.check_peak(None);
        let taken = NOW.load(Ordering::SeqCst).saturating_sub(self.before);
        let said = pipeline.memory_bytes();
        self.last_bytes.store(said, Ordering::SeqCst);
        if said + SLACK_BYTES < taken || (!self.unseen && taken + SLACK_BYTES < said) {
            self.wrong.lock().unwrap().push(format!("{said} bytes were said, {taken} are taken"));
        }
    }

    fn advanced(&self, _: FileProgress) {}
}

/// Reads data, and gives the memory that it took at the end. All cases in one test: they share the allocator.
fn check(name: &str, options: &PipelineOptions, data: Vec<u8>) -> usize {
    let data = Bytes::from(data);
    let workers = Workers::new(NonZeroUsize::new(2).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let before = NOW.load(Ordering::SeqCst);
    let pipeline = Arc::new(Mutex::new(Some(Pipeline::new(options).unwrap())));
    let observer = Arc::new(Comparing {
        before,
        permitted: Mutex::new(None),
        wrong: Mutex::default(),
        last_bytes: AtomicUsize::new(0),
        unseen: matches!(options.coding, Some(Coding::Zstd)),
    });
    let pieces: Vec<_> =
        (0..data.len()).step_by(60_000).map(|at| data.slice(at..data.len().min(at + 60_000))).collect();
    let mut source = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
    runtime.block_on(receive(&mut source, &pipeline, &workers, &observer)).unwrap();
    let wrong = observer.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{name}: {} times, first: {}", wrong.len(), wrong[0]);
    observer.last_bytes.load(Ordering::SeqCst)
}

const HEADER: &str = "campaign_id,date,impressions,clicks,spend,conversions\n";

fn text(rows: u64, row: impl Fn(u64, &mut Vec<u8>)) -> Vec<u8> {
    let mut text = HEADER.as_bytes().to_vec();
    (0..rows).for_each(|number| row(number, &mut text));
    text
}

/// Half the text is stored as it is, in a window of 16 MiB.
fn brotli(text: &[u8]) -> Vec<u8> {
    // RFC 7932, 9.1 and 9.2: WBITS 24 is 1111 of four bits; then for each block ISLAST 0, MNIBBLES 0 (four), MLEN - 1, ISUNCOMPRESSED 1.
    let (mut bits, mut count, mut data) = (0b1111_u64, 4_u32, Vec::new());
    for block in text.chunks(65_536) {
        bits |= (((block.len() as u64 - 1) << 3) | 1 << 19) << count;
        count += 20;
        while count > 0 {
            data.push((bits & 0xff) as u8);
            bits >>= 8;
            count = count.saturating_sub(8);
        }
        bits = 0;
        data.extend_from_slice(block);
    }
    // An empty last block.
    data.push(3);
    data
}

#[test]
fn memory_is_what_the_allocator_gives_and_enough_is_asked_for() {
    let default = PipelineOptions::default();
    let short = text(400_000, |number, text| writeln!(text, "C{number},2025-01-01,1,1,1.00,1").unwrap());
    let said = check("short ids", &default, short.clone());
    assert!((20_000_000..60_000_000).contains(&said), "{said}");

    let uuid = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let uuids = text(200_000, |number, text| {
        writeln!(text, "{:016x}-1234-5678-{number:012x},2025-01-01,1,1,1.00,1", uuid(number)).unwrap();
    });
    check("long ids", &default, uuids);

    check("wide sums", &default, text(200_000, |number, text| writeln!(text, "C{number},d,1,1,1.000001,1").unwrap()));
    check("least rows", &default, text(300_000, |number, text| writeln!(text, "{number:x},,1,1,1,1").unwrap()));

    let rejects = TallyOptions { max_rejects_bytes: Some(64 << 20), ..TallyOptions::default() };
    let keeps_rejects = PipelineOptions { tally: rejects, ..default.clone() };
    check("rejects", &keeps_rejects, text(200_000, |number, text| writeln!(text, "{:x}", uuid(number)).unwrap()));
    check("short rejects", &keeps_rejects, text(500_000, |_, text| text.extend_from_slice(b"a\n")));

    let zstd = PipelineOptions { coding: Some(Coding::Zstd), ..default.clone() };
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_parameter(zstd::stream::raw::CParameter::WindowLog(23)).unwrap();
    encoder.write_all(&short).unwrap();
    let said = check("zstd", &zstd, encoder.finish().unwrap());
    assert!(said > 28_000_000, "the window is missing: {said}");

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&short).unwrap();
    check("gzip", &default, encoder.finish().unwrap());

    let br = PipelineOptions { coding: Some(Coding::Brotli), ..default.clone() };
    let said = check("brotli", &br, brotli(&short));
    assert!(said > 36_000_000, "the window is missing: {said}");

    let utf_16 = String::from_utf8(short).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let options = PipelineOptions { encoding: encoding_rs::UTF_16LE, ..default };
    check("utf-16", &options, utf_16);
}
