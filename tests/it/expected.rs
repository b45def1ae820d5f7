//! What the command makes of files, to be compared with what became of a job.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Workspace, run};
use crate::service::Service;

/// The results of `adtally aggregate`, by the names of their files.
pub(crate) struct Expected {
    results: BTreeMap<String, String>,
    stats: Value,
}

impl Expected {
    /// Runs the command on these files, in this order.
    #[track_caller]
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let place = Workspace::new();
        let mut arguments = Vec::new();
        for (name, contents) in files {
            place.write(name, contents);
            arguments.extend(["--input", name]);
        }
        arguments.extend(["--output", "out", "--all-campaigns"]);
        run(&mut place.aggregate(arguments), b"").assert_done();
        let stats = without_times(&place.read_json("out/stats.json"));
        Self { results: place.files("out"), stats }
    }

    /// Checks that a job has succeeded with exactly these results.
    #[track_caller]
    pub(crate) fn assert_are_those_of(&self, service: &Service, job: &Value) {
        assert_eq!(job["state"], "succeeded", "{job}");
        let links = job["links"]["results"].as_object().unwrap();
        assert_eq!(links.keys().collect::<Vec<_>>(), self.results.keys().collect::<Vec<_>>());
        for (name, link) in links {
            let reply = service.get(link.as_str().unwrap());
            if name == "stats.json" {
                assert_eq!(without_times(&reply.expect(200)), self.stats);
                assert_eq!(reply.json(), job["stats"]);
            } else {
                assert_eq!(reply.status, 200, "{name}");
                let difference =
                    reply.text().lines().zip(self.results[name].lines()).find(|(line, other)| line != other);
                assert!(reply.text() == self.results[name], "{name} differs: {difference:?}");
            }
        }
    }
}

/// A document without what depends on the time.
fn without_times(stats: &Value) -> Value {
    let members = stats.as_object().unwrap().iter().filter(|(name, _)| !name.contains("second"));
    members.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into()
}
