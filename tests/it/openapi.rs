//! The description of the interface: it names what the router knows, and the running service answers as it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use adtally::engine::Format;
use adtally::jobs::JobOptions;
use serde_json::{Value, json};

use crate::harness::project_path;
use crate::service::{Reply, Service};

/// What every `type` of a problem starts with.
const PROBLEM: &str = "urn:adtally:problem:";

/// Keywords of a schema that [`Description::mismatch`] does not look at.
const NOT_CHECKED: [&str; 6] = ["contentMediaType", "contentSchema", "default", "description", "format", "pattern"];

/// `openapi.yaml`.
pub(crate) struct Description {
    text: String,
    root: Value,
}

impl Description {
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(project_path("openapi.yaml")).unwrap();
        let root = serde_saphyr::from_str(&text).unwrap();
        Self { text, root }
    }

    /// What stands where a reference points to; anything else stands for itself.
    #[track_caller]
    fn resolve<'a>(&'a self, node: &'a Value) -> &'a Value {
        match node.get("$ref") {
            Some(reference) => {
                let pointer = reference.as_str().unwrap().strip_prefix('#').expect("references stay in the document");
                let target = self.root.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"));
                self.resolve(target)
            }
            None => node,
        }
    }

    /// Every path, with the operations on it by method in upper case.
    pub(crate) fn paths(&self) -> BTreeMap<&str, BTreeMap<String, &Value>> {
        let operations = |item: &'_ Value| -> Vec<String> {
            item.as_object().unwrap().keys().filter(|key| *key != "parameters").map(|key| key.to_uppercase()).collect()
        };
        let paths = self.root["paths"].as_object().unwrap();
        paths
            .iter()
            .map(|(path, item)| {
                let methods = operations(item).into_iter();
                (path.as_str(), methods.map(|method| (method.clone(), &item[method.to_lowercase()])).collect())
            })
            .collect()
    }

    /// The codes of all problems.
    fn problem_codes(&self) -> BTreeSet<String> {
        let types = &self.root["components"]["schemas"]["ProblemType"]["enum"];
        let code = |name: &Value| name.as_str().unwrap().strip_prefix(PROBLEM).unwrap().to_owned();
        types.as_array().unwrap().iter().map(code).collect()
    }

    /// Calls with every object in the document and its place.
    fn for_every_object<'a>(&'a self, visit: &mut impl FnMut(&str, &'a Value)) {
        fn walk<'a>(place: &str, node: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
            match node {
                Value::Object(members) => {
                    visit(place, node);
                    members.iter().for_each(|(name, member)| walk(&format!("{place}/{name}"), member, visit));
                }
                Value::Array(items) => {
                    items.iter().enumerate().for_each(|(at, item)| walk(&format!("{place}/{at}"), item, visit));
                }
                _ => {}
            }
        }
        walk("", &self.root, visit);
    }

    /// The examples that a parameter, a header or a media type has.
    fn examples<'a>(&'a self, node: &'a Value) -> Vec<&'a Value> {
        let named = node.get("examples").and_then(Value::as_object).into_iter().flat_map(|examples| examples.values());
        named.map(|example| &self.resolve(example)["value"]).chain(node.get("example")).collect()
    }

    /// How a value differs from a schema. Patterns and formats are not looked at.
    fn mismatch(&self, schema: &Value, value: &Value) -> Option<String> {
        let keywords = schema.as_object().unwrap();
        keywords.iter().find_map(|(keyword, expected)| {
            let differs = match keyword.as_str() {
                "$ref" => return self.mismatch(self.resolve(schema), value),
                "allOf" => return expected.as_array().unwrap().iter().find_map(|part| self.mismatch(part, value)),
                "anyOf" => expected.as_array().unwrap().iter().all(|part| self.mismatch(part, value).is_some()),
                "not" => self.mismatch(expected, value).is_none(),
                "const" => value != expected,
                "enum" => !expected.as_array().unwrap().contains(value),
                "type" if expected.is_array() => expected.as_array().unwrap().iter().all(|name| !is_of(name, value)),
                "type" => !is_of(expected, value),
                "minimum" => value.as_f64().is_some_and(|number| number < expected.as_f64().unwrap()),
                "maximum" => value.as_f64().is_some_and(|number| number > expected.as_f64().unwrap()),
                "minLength" => value.as_str().is_some_and(|text| (text.chars().count() as u64) < limit(expected)),
                "maxLength" => value.as_str().is_some_and(|text| text.chars().count() as u64 > limit(expected)),
                "minItems" => value.as_array().is_some_and(|items| (items.len() as u64) < limit(expected)),
                "maxItems" => value.as_array().is_some_and(|items| items.len() as u64 > limit(expected)),
                "items" => return value.as_array()?.iter().find_map(|item| self.mismatch(expected, item)),
                "required" => {
                    let has = |name: &Value| value.get(name.as_str().unwrap()).is_some();
                    value.is_object() && !expected.as_array().unwrap().iter().all(has)
                }
                "properties" => {
                    let properties = expected.as_object().unwrap().iter();
                    return properties
                        .filter_map(|(name, schema)| Some((name, self.mismatch(schema, value.get(name)?)?)))
                        .map(|(name, mismatch)| format!("{name}: {mismatch}"))
                        .next();
                }
                "additionalProperties" => {
                    let known = schema.get("properties").and_then(Value::as_object);
                    let is_known = |name: &str| known.is_some_and(|known| known.contains_key(name));
                    let mut others = value.as_object()?.iter().filter(|(name, _)| !is_known(name));
                    match expected {
                        Value::Bool(allowed) => !allowed && others.next().is_some(),
                        schema => return others.find_map(|(_, member)| self.mismatch(schema, member)),
                    }
                }
                "propertyNames" => {
                    return value.as_object()?.keys().find_map(|name| self.mismatch(expected, &json!(name)));
                }
                other => {
                    assert!(NOT_CHECKED.contains(&other), "nobody checks {other}");
                    false
                }
            };
            differs.then(|| format!("{value} against {keyword} {expected}"))
        })
    }

    /// Checks that an answer is one of those that the operation may give: its status, type, headers and contents.
    #[track_caller]
    pub(crate) fn assert_answers(&self, operation: &Value, reply: &Reply) {
        let place = operation["operationId"].as_str().unwrap();
        let status = reply.status;
        let Some(response) = operation["responses"].get(status.to_string()) else {
            panic!("{place} does not say that it may answer {status}: {}", reply.text());
        };
        let response = self.resolve(response);
        for (name, header) in response["headers"].as_object().unwrap() {
            let is_required = self.resolve(header)["required"] == true;
            let is_there = reply.header(&name.to_ascii_lowercase()).is_some();
            assert!(is_there || !is_required, "{place}, {status} without {name}");
        }
        let Some(contents) = response.get("content") else {
            assert!(reply.body.is_empty(), "{place}, {status} has a body");
            return;
        };
        let content_type = reply.header("content-type").unwrap_or_else(|| panic!("{place}, {status} without type"));
        let media_type = content_type.split(';').next().unwrap().trim();
        let content =
            contents.get(media_type).unwrap_or_else(|| panic!("{place} does not say that it may answer {media_type}"));
        if media_type.ends_with("json") {
            let value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!(self.mismatch(&content["schema"], &value), None, "{place}, {status}");
        }
    }
}

/// Whether a value is of the type that a schema names so.
fn is_of(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "array" => value.is_array(),
        "boolean" => value.is_boolean(),
        // Counts beyond 64 bits come out of the parser as floats.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "string" => value.is_string(),
        other => panic!("{other} is no type"),
    }
}

fn limit(expected: &Value) -> u64 {
    expected.as_u64().unwrap()
}

/// The Rust sources below a directory, one behind the other and without their unit tests.
fn sources(directory: &Path) -> String {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.extension() {
            Some(extension) if extension == "rs" => {
                fs::read_to_string(&path).unwrap().split("#[cfg(test)]").next().unwrap().to_owned()
            }
            _ if path.is_dir() => sources(&path),
            _ => String::new(),
        })
        .collect()
}

/// The paths that sources give to the router. One with a slash at its end is the same as without.
fn routes(sources: &str) -> BTreeSet<&str> {
    let arguments = sources.split(".route(").skip(1).map(str::trim_start);
    let literals = arguments.filter_map(|arguments| arguments.strip_prefix('"')?.split('"').next());
    literals.map(|path| if path == "/" { path } else { path.trim_end_matches('/') }).collect()
}

/// The codes of problems that sources name: words in quotes before a status, and the outcomes of `FailureKind::name`.
fn codes(sources: &str) -> BTreeSet<String> {
    let text = sources.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_word = |character: char| character.is_ascii_lowercase() || character == '_';
    let mut found = BTreeSet::new();
    for (quote, _) in text.match_indices('"') {
        let (before, rest) = (&text[..quote], &text[quote + 1..]);
        let word = &rest[..rest.find(|character| !is_word(character)).unwrap_or(rest.len())];
        let Some(after) = rest[word.len()..].strip_prefix('"').filter(|_| !word.is_empty()) else { continue };
        let is_in = |item: &str, name: &str| before.rsplit(item).next().is_some_and(|rest| rest.starts_with(name));
        let has_status = after.starts_with(", S::") || after.starts_with(", StatusCode::");
        let is_failure = before.ends_with("=> ") && is_in("fn ", "name(") && is_in("impl ", "FailureKind {");
        if has_status || is_failure {
            found.insert(word.to_owned());
        }
    }
    found
}

/// A path of the document with something in place of its parameters.
pub(crate) fn filled(path: &str) -> String {
    let file = if path.starts_with("/page/") { "style.css" } else { "top10_ctr.csv" };
    path.replace("{job}", "ad_data.csv").replace("{file}", file)
}

#[test]
fn every_operation_answers_as_described() {
    let description = Description::read();
    let service = Service::start();
    for (path, operations) in description.paths() {
        for (method, operation) in operations {
            let reply = service.request(&method, &filled(path));
            let not_found = format!("{PROBLEM}not_found\"");
            assert!(!reply.text().contains(&not_found), "{method} {path}: the router does not know it");
            description.assert_answers(operation, &reply);
        }
    }
}

#[test]
fn every_path_allows_the_described_methods() {
    let description = Description::read();
    let service = Service::start();
    for (path, operations) in description.paths() {
        // No path has this method.
        let reply = service.request("TRACE", &filled(path));
        assert_eq!(reply.status, 405, "TRACE {path}");
        let allowed: BTreeSet<_> = reply.header("allow").expect(path).split(',').map(str::trim).collect();
        let mut described: BTreeSet<_> = operations.keys().map(String::as_str).collect();
        if described.contains("GET") {
            described.insert("HEAD");
        }
        assert_eq!(allowed, described, "{path}");
    }
}

#[test]
fn the_document_and_the_router_name_the_same_paths() {
    let description = Description::read();
    let sources = sources(&project_path("src/http"));
    assert_eq!(routes(&sources), description.paths().into_keys().collect());
}

#[test]
fn the_service_serves_the_document() {
    let description = Description::read();
    let reply = Service::start().request("GET", "/openapi.yaml");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/yaml"));
    assert!(reply.body == description.text.as_bytes(), "the service serves another document than openapi.yaml");
}

#[test]
fn the_document_is_about_this_version() {
    assert_eq!(Description::read().root["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_reference_resolves_and_everything_shared_is_used() {
    let description = Description::read();
    let mut used = BTreeSet::new();
    description.for_every_object(&mut |_, node| {
        if let Some(reference) = node.get("$ref") {
            description.resolve(node);
            used.insert(reference.as_str().unwrap().to_owned());
        }
    });
    // These are named, not referred to.
    for scheme in description.root["security"].as_array().unwrap() {
        used.extend(scheme.as_object().unwrap().keys().map(|name| format!("#/components/securitySchemes/{name}")));
    }
    for (kind, components) in description.root["components"].as_object().unwrap() {
        for name in components.as_object().unwrap().keys() {
            assert!(used.contains(&format!("#/components/{kind}/{name}")), "nothing uses {name} of {kind}");
        }
    }
}

#[test]
fn every_example_is_what_its_schema_describes() {
    let description = Description::read();
    description.for_every_object(&mut |place, node| {
        let examples = description.examples(node);
        let is_media_type = place.rsplit_once("/content/").is_some_and(|(_, name)| name.matches('/').count() == 1);
        assert!(!is_media_type || !examples.is_empty(), "{place} has no example");
        if let Some(schema) = node.get("schema") {
            for example in examples {
                assert_eq!(description.mismatch(schema, example), None, "{place}");
            }
        }
    });
}

#[test]
fn examples_of_problems_have_the_status_they_are_shown_under() {
    let description = Description::read();
    for operation in description.paths().into_values().flat_map(BTreeMap::into_values) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let content = &description.resolve(response)["content"]["application/problem+json"];
            for example in description.examples(content) {
                assert_eq!(example["status"].to_string(), *status, "{example}");
            }
        }
    }
}

#[test]
fn the_document_and_the_sources_name_the_same_problems() {
    let sources = ["src/http", "src/jobs"].map(|directory| sources(&project_path(directory))).concat();
    assert_eq!(codes(&sources), Description::read().problem_codes());
}

#[test]
fn the_document_and_the_program_name_the_same_options() {
    let description = Description::read();
    let names_of = |node: &Value| -> BTreeSet<String> { node.as_object().unwrap().keys().cloned().collect() };
    let all: BTreeSet<_> = JobOptions::NAMES.map(str::to_owned).into();
    let mut of_files = all.clone();
    of_files.remove("top");
    let paths = description.paths();
    for (path, method, options) in [
        ("/v1/jobs", "PUT", &all),
        ("/v1/jobs", "POST", &all),
        ("/v1/jobs/{job}", "PUT", &all),
        ("/v1/jobs/{job}/files/{file}", "PUT", &of_files),
    ] {
        let parameters = paths[path][method]["parameters"].as_array().unwrap().iter();
        let parameters = parameters.map(|parameter| description.resolve(parameter));
        let names = parameters.filter(|one| one["in"] == "query" && one["name"] != "name");
        let names: BTreeSet<_> = names.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, *options, "{method} {path}");
    }
    let schemas = &description.root["components"]["schemas"];
    assert_eq!(names_of(&schemas["Options"]["properties"]), all);
    assert_eq!(names_of(&schemas["NewOpenJob"]["properties"]["options"]["properties"]), all);
    let mut of_form = names_of(&schemas["UploadForm"]["properties"]);
    assert!(of_form.remove("file"));
    assert_eq!(of_form, all);
    let formats: Vec<_> = Format::all().map(|format| format.definition().name).collect();
    assert_eq!(schemas["FormatName"]["enum"], json!(formats));
}

#[test]
fn codes_are_found_in_sources() {
    for source in [
        "use StatusCode as S; match self { Self::NoJob => (\"job_not_found\", S::NOT_FOUND, \"There is no such job\") }",
        "Problem::new(\n    \"job_not_found\",\n    StatusCode::NOT_FOUND,\n)",
        "impl FailureKind { fn name(&self) -> &'static str { match self { Self::NoJob => \"job_not_found\" } } }",
    ] {
        assert_eq!(codes(source), BTreeSet::from(["job_not_found".to_owned()]), "{source}");
    }
    for source in
        ["impl State { fn name(&self) { match self { Self::Open => \"open\" } } }", "limit(\"max_upload_bytes\", 64)"]
    {
        assert_eq!(codes(source), BTreeSet::new(), "{source}");
    }
}

#[test]
fn what_a_schema_does_not_describe_is_found() {
    let description = Description::read();
    let schema = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let reject = |line: Value, reason: &str| json!([{"line": line, "byte_offset": 0, "reason": reason, "record": ""}]);
    for (name, value) in [
        ("Rejects", reject(json!(0), "spend")),
        ("Rejects", reject(json!(1.5), "spend")),
        ("Rejects", reject(json!("1"), "spend")),
        ("Rejects", reject(json!(1), "weather")),
        ("Rejects", json!([{}])),
        ("JobList", json!({"jobs": [], "next_cursor": 1})),
        ("JobList", json!({"jobs": [], "next_cursor": null, "total": 0})),
        ("Links", json!({"self": "", "events": "", "results": {"a": 1}})),
        ("Name", json!("..")),
        ("Name", json!("")),
    ] {
        assert!(description.mismatch(&schema(name), &value).is_some(), "{name}: {value}");
    }
    assert_eq!(description.mismatch(&schema("Rejects"), &reject(json!(1), "spend")), None);
}
