//! Tenants: what one has does not exist for another, by any route.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::openapi::Description;
use crate::senders::{chunk, csv};
use crate::service::Reply;
use crate::token_file::wait_until;
use crate::tokens::{Client, Guarded};

const MINE: &[&str] = &["mine", "--tenant", "we"];
const YOURS: &[&str] = &["yours", "--tenant", "you"];
const ADMIN: &[&str] = &["root", "--admin", "--tenant", "ops"];

/// An id that no job has.
const NOBODYS: &str = "0199f173-5810-7c3e-9b1d-3f5a7e2c8d41";

fn open_job(client: &Client<'_>, name: &str) -> Value {
    let body = json!({ "name": name }).to_string();
    client.send("POST", "/v1/jobs", &[("content-type", "application/json")], body.as_bytes()).expect(201)
}

/// A request as it has to be to reach the job: whatever else were wrong with it would be refused first.
pub(crate) fn reach(client: &Client<'_>, method: &str, path: &str) -> Reply {
    let tus = ("tus-resumable", "1.0.0");
    let bytes = ("content-type", "application/offset+octet-stream");
    match (method, path.starts_with("/v1/tus/")) {
        ("PATCH", false) => client.send(method, path, &[("upload-offset", "0")], &csv(3)),
        ("PUT", false) => client.send(method, path, &[], &csv(3)),
        (_, false) => client.send(method, path, &[], b""),
        ("PATCH", true) => client.send(method, path, &[tus, bytes, ("upload-offset", "0")], &csv(3)),
        ("POST", true) => {
            let fields = [tus, bytes, ("upload-offset", "0"), ("x-http-method-override", "PATCH")];
            client.send(method, path, &fields, &csv(3))
        }
        (_, true) => client.send(method, path, &[tus], b""),
    }
}

/// What an answer says but for the names that its request had.
fn told(reply: &Reply, name: &str, method: &str) -> (u16, Value) {
    if method == "HEAD" {
        return (reply.status, Value::Null);
    }
    let mut problem = reply.json();
    let problem = problem.as_object_mut().unwrap();
    problem.remove("request_id");
    (reply.status, json!(problem).to_string().replace(name, "NAME").into())
}

#[test]
fn no_route_tells_anything_about_jobs_of_other_tenants() {
    let description = Description::read();
    let (guarded, [mine, yours, _]) = Guarded::start([MINE, YOURS, ADMIN], &[]);
    let [mine, yours] = [&mine, &yours].map(|token| guarded.client(token));
    // In every state: succeeded, failed, cancelled, open with files, interrupted, being received.
    let done = mine.put("/v1/jobs/ad_data.csv", &csv(50)).expect(201);
    mine.put("/v1/jobs/failed", b"no table\n").expect(422);
    let cancelled = open_job(&mine, "cancelled");
    mine.send("POST", &format!("{}/cancel", cancelled["links"]["self"].as_str().unwrap()), &[], b"").expect(200);
    let open = open_job(&mine, "open");
    let open_path = open["links"]["self"].as_str().unwrap();
    mine.put(&format!("{open_path}/files/top10_ctr.csv"), &csv(5)).expect(201);
    let metadata = format!("filename {}", STANDARD.encode("created"));
    let create = [("tus-resumable", "1.0.0"), ("upload-length", "900"), ("upload-metadata", &*metadata)];
    assert_eq!(mine.send("POST", "/v1/tus", &create, b"").status, 201);
    let mut receiving = guarded.service.connect();
    receiving.send(mine.head("PUT", "/v1/jobs/receiving", "Transfer-Encoding: chunked\r\n")).send(chunk(&csv(20)));
    let names = ["ad_data.csv", "failed", "cancelled", "open", "created", "receiving"];
    wait_until("all are there", || names.iter().all(|name| mine.get(&format!("/v1/jobs/{name}")).status == 200));
    let shown = |name: &str| mine.get(&format!("/v1/jobs/{name}")).expect(200);
    let ids = names.map(|name| shown(name)["id"].as_str().unwrap().to_owned());
    // Without what time changes while it is received.
    let stable = |job: Value| {
        let files: Vec<_> =
            job["files"].as_array().unwrap().iter().map(|file| (&file["name"], &file["state"])).collect();
        json!([
            job["id"],
            job["name"],
            job["state"],
            job["error"],
            job["stats"],
            job["links"],
            job["finished_at"],
            files
        ])
    };
    let before = names.map(|name| stable(shown(name)));
    let mut reached = 0;
    for (path, operations) in description.paths() {
        for method in operations.keys().filter(|_| path.contains("{job}")) {
            for file in ["ad_data.csv", "top10_ctr.csv", "created", "receiving", "nothing"] {
                let fill = |job: &str| path.replace("{job}", job).replace("{file}", file);
                let unknown = told(&reach(&yours, method, &fill(NOBODYS)), NOBODYS, method);
                for id in &ids {
                    let answer = reach(&yours, method, &fill(id));
                    assert_eq!(told(&answer, id, method), unknown, "{method} {path} {file}");
                    reached += 1;
                }
                let makes_jobs = (method.as_str(), path) == ("PUT", "/v1/jobs/{job}");
                if makes_jobs {
                    assert_eq!(unknown.0, 400, "an id is no name");
                    continue;
                }
                assert_eq!(unknown.0, 404, "{method} {path}: {unknown:?}");
                let unknown = told(&reach(&yours, method, &fill("nobodys")), "nobodys", method);
                for name in names {
                    let answer = reach(&yours, method, &fill(name));
                    assert_eq!(told(&answer, name, method), unknown, "{method} {path} {file}");
                }
            }
            // So that the comparison says something: their owner gets something else.
            let owners =
                reach_harmlessly(&mine, method, &path.replace("{job}", &ids[0]).replace("{file}", "ad_data.csv"));
            assert!(owners.is_none_or(|reply| reply.status != 404 || path.contains("/results/")), "{method} {path}");
        }
    }
    assert!(reached > 300, "{reached}");
    let into_another_job = format!("filename {},job {}", STANDARD.encode("x"), STANDARD.encode(&ids[3]));
    let create = [("tus-resumable", "1.0.0"), ("upload-length", "900"), ("upload-metadata", &*into_another_job)];
    yours.send("POST", "/v1/tus", &create, b"").expect_problem(404, "job_not_found", &[]);
    assert_eq!(names.map(|name| stable(shown(name))), before, "somebody else has changed a job");
    let list = yours.get("/v1/jobs?limit=100").expect(200);
    assert_eq!(list["jobs"], json!([]));
    for query in ["name=ad_data.csv", "state=succeeded", "name=open&state=open"] {
        assert_eq!(yours.get(&format!("/v1/jobs?{query}")).expect(200)["jobs"], json!([]), "{query}");
    }
    // A cursor is no way in.
    let cursor = format!("/v1/jobs?cursor={}", "ffffffff-ffff-7fff-bfff-ffffffffffff");
    assert_eq!(yours.get(&cursor).expect(200)["jobs"], json!([]));
    receiving.send("0\r\n\r\n");
    receiving.read_reply().expect(201);
    assert_eq!(shown("ad_data.csv"), done);
}

/// The same request as its owner sends it, where that changes nothing.
fn reach_harmlessly(client: &Client<'_>, method: &str, path: &str) -> Option<Reply> {
    matches!(method, "GET" | "HEAD").then(|| reach(client, method, path))
}

#[test]
fn names_keys_and_lists_are_the_tenants_own() {
    let (guarded, [mine, mine_too, yours]) = Guarded::start([MINE, &["mine-too", "--tenant", "we"], YOURS], &[]);
    let [mine, mine_too, yours] = [&mine, &mine_too, &yours].map(|token| guarded.client(token));
    let key = [("idempotency-key", "may")];
    let first = mine.send("PUT", "/v1/jobs/same", &key, &csv(10)).expect(201);
    let other = yours.send("PUT", "/v1/jobs/same", &key, &csv(20)).expect(201);
    assert_ne!(first["id"], other["id"]);
    for (client, job, rows) in [(&mine, &first, 10), (&mine_too, &first, 10), (&yours, &other, 20)] {
        let again = client.send("PUT", "/v1/jobs/same", &key, b"");
        assert_eq!((again.status, again.header("idempotency-replayed")), (200, Some("true")));
        assert_eq!(again.json()["id"], job["id"]);
        let by_name = client.get("/v1/jobs/same").expect(200);
        assert_eq!((&by_name["id"], &by_name["stats"]["rows_read"]), (&job["id"], &json!(rows)));
        assert_eq!(by_name.get("tenant"), None);
        let list = client.get("/v1/jobs").expect(200);
        assert_eq!(list["jobs"].as_array().unwrap().len(), 1, "{list}");
        assert_eq!(list["jobs"][0]["id"], job["id"]);
    }
    // The other open jobs, and tus uploads, with keys of their own, too.
    for client in [&mine, &yours] {
        let fields = [("content-type", "application/json"), ("idempotency-key", "june")];
        client.send("POST", "/v1/jobs", &fields, b"{\"name\": \"open\"}").expect(201);
        let fields = [("tus-resumable", "1.0.0"), ("upload-length", "9"), ("idempotency-key", "july")];
        assert_eq!(client.send("POST", "/v1/tus", &fields, b"").header("idempotency-replayed"), None);
    }
    mine_too.send("DELETE", "/v1/jobs/same", &[], b"");
    mine.get("/v1/jobs/same").expect_problem(404, "job_not_found", &[]);
    yours.get("/v1/jobs/same").expect(200);
}

#[test]
fn administrators_reach_the_jobs_of_all_tenants() {
    let (guarded, [mine, yours, admin]) = Guarded::start([MINE, YOURS, ADMIN], &[]);
    let [mine, yours, admin] = [&mine, &yours, &admin].map(|token| guarded.client(token));
    let first = mine.put("/v1/jobs/same", &csv(10)).expect(201);
    let newest = yours.put("/v1/jobs/same", &csv(20)).expect(201);
    let own = admin.put("/v1/jobs/own", &csv(5)).expect(201);
    assert_eq!(own["tenant"], "ops");
    mine.get("/v1/jobs/own").expect_problem(404, "job_not_found", &[]);
    let named = admin.get("/v1/jobs/same").expect(200);
    assert_eq!((&named["id"], &named["tenant"]), (&newest["id"], &json!("you")));
    let list = admin.get("/v1/jobs").expect(200);
    let tenants: Vec<_> = list["jobs"].as_array().unwrap().iter().map(|job| job["tenant"].as_str().unwrap()).collect();
    assert_eq!(tenants, ["ops", "you", "we"]);
    let result = first["links"]["results"]["campaigns.csv"].as_str().unwrap();
    assert_eq!(admin.get(result).body, mine.get(result).body);
    assert_eq!(yours.get(result).status, 404);
    assert_eq!(admin.send("DELETE", first["links"]["self"].as_str().unwrap(), &[], b"").status, 204);
    mine.get("/v1/jobs/same").expect_problem(404, "job_not_found", &[]);
    // A key of an administrator is that of its own tenant.
    let key = [("idempotency-key", "may")];
    mine.send("PUT", "/v1/jobs/keyed", &key, &csv(1)).expect(201);
    admin.send("PUT", "/v1/jobs/keyed", &key, &csv(1)).expect(201);
}

#[test]
fn only_its_tenant_is_told_that_a_job_has_expired() {
    let (guarded, [mine, yours, admin]) = Guarded::start([MINE, YOURS, ADMIN], &["--keep-finished", "1s"]);
    let [mine, yours, admin] = [&mine, &yours, &admin].map(|token| guarded.client(token));
    let job = mine.put("/v1/jobs/short", &csv(3)).expect(201);
    let path = job["links"]["self"].as_str().unwrap();
    wait_until("it expires", || mine.get(path).status != 200);
    // The same before and after it has been removed.
    for client in [&mine, &admin] {
        client.get(path).expect_problem(410, "job_expired", &[]);
    }
    yours.get(path).expect_problem(404, "job_not_found", &[]);
    yours.send("DELETE", path, &[], b"").expect_problem(404, "job_not_found", &[]);
}

#[test]
fn jobs_made_without_tokens_belong_to_the_tenant_without_a_name() {
    let (mut guarded, [plain, mine]) = Guarded::start([&["plain", "--tenant", ""], MINE], &[]);
    guarded.client(&plain).put("/v1/jobs/old", &csv(3)).expect(201);
    guarded.client(&mine).put("/v1/jobs/secret", &csv(3)).expect(201);
    guarded.service.kill();
    guarded.service.drop_arguments();
    guarded.service.launch();
    let shown = guarded.service.get("/v1/jobs/old").expect(200);
    assert_eq!(shown.get("tenant"), None);
    guarded.service.get("/v1/jobs/secret").expect_problem(404, "job_not_found", &[]);
    assert_eq!(guarded.service.get("/v1/jobs").expect(200)["jobs"].as_array().unwrap().len(), 1);
}
