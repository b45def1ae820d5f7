//! A client of tus that others have written, over a connection that breaks again and again.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Workspace, project_path, run};
use crate::senders::csv;
use crate::service::Service;

/// The Python that has tuspy; without it, the one of this system is tried.
const PYTHON_VARIABLE: &str = "ADTALLY_TUSPY_PYTHON";

#[test]
fn tuspy_gets_a_file_through_a_connection_that_is_cut() {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".into());
    let has_tuspy = Command::new(&python).args(["-c", "import tusclient"]).output();
    if !has_tuspy.is_ok_and(|output| output.status.success()) {
        println!("skipped: {python} has no tuspy; {PYTHON_VARIABLE} names one that has it");
        return;
    }
    let service = Service::start();
    let workspace = Workspace::new();
    // About 20 MB.
    let whole = csv(700_000);
    workspace.write("ads.csv", &whole);
    let mut client = Command::new(python);
    client.arg(project_path("tests/clients/tus_through_cuts.py")).arg(service.address()).arg(workspace.path("ads.csv"));
    let run = run(&mut client, b"");
    run.assert_done();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(report["cuts"].as_u64() > Some(3), "{report}");
    let path = report["address"].as_str().unwrap();
    let id = path.split("/v1/tus/").nth(1).unwrap().split('/').next().unwrap();
    let job = service.get(&format!("/v1/jobs/{id}")).expect(200);
    assert_eq!((&job["state"], &job["name"]), (&json!("succeeded"), &json!("ads.csv")), "{job}");
    let expected = service.put("/v1/jobs/whole", &whole).expect(201);
    for name in ["campaigns.csv", "top10_ctr.csv", "top10_cpa.csv"] {
        let table = |job: &Value| service.get(job["links"]["results"][name].as_str().unwrap()).text().to_owned();
        assert_eq!(table(&job), table(&expected), "{name}");
    }
}
