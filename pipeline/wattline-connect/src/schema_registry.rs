//! A schema registry, as Confluent's describes its interface: the schemas that Avro records name by number.
//!
//! | asked | answer |
//! |---|---|
//! | `GET /schemas/ids/{number}` | the text of a schema, what kind it is, and which others it refers to |
//! | `GET /subjects/{subject}/versions/{version}` | the same of a schema that others refer to |
//!
//! A schema never changes its number, nor a number its schema: what was answered once needs no second question. A registry says
//! with an error code of its own that it has no such schema ([`Found::Nothing`]). Any other answer is one of somebody who is not there, is
//! busy or does not let us in, and that may be another one later: an [`Error`] with [`Retry::Backoff`](wattline_core::error::Retry).
//!
//! A schema that refers to others is made whole: each name is replaced by what it stands for where it occurs first, as Avro wants it of
//! one text.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(20);
/// A schema text of this size is none.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Schemas that one refers to, directly or through others.
const REFERENCES_MAX: usize = 100;
/// What a registry says of a schema, a subject, a version that it does not have.
const NOT_THERE: [i64; 3] = [40_401, 40_402, 40_403];

/// Where a registry is.
#[derive(Clone)]
pub struct SchemaRegistryConfig {
    /// Its address.
    pub url: String,
    /// Name and password, if it wants them.
    pub login: Option<(String, String)>,
}

/// Asks a registry.
pub struct SchemaRegistry {
    client: reqwest::Client,
    base: Url,
    login: Option<(String, String)>,
}

/// What a registry has under a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An Avro schema, whole.
    Avro(String),
    /// A schema of this other kind.
    Other(String),
    /// Nothing.
    Nothing,
}

/// A schema, as the registry answers.
#[derive(Debug, Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i64,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    error_code: i64,
}

impl fmt::Debug for SchemaRegistryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaRegistryConfig").field("url", &self.url).finish_non_exhaustive()
    }
}

impl fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaRegistry").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl SchemaRegistry {
    /// Asks nothing yet.
    ///
    /// # Errors
    /// [`Error::RegistrySettings`] if the address is none.
    pub fn new(config: SchemaRegistryConfig) -> Result<Self> {
        let refused = |detail: String| Error::RegistrySettings { url: config.url.clone(), detail };
        let mut base = Url::parse(&config.url).map_err(|error| refused(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(refused("write `http://…` or `https://…`".to_owned()));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT).build();
        let client = client.map_err(|error| refused(error.to_string()))?;
        Ok(Self { client, base, login: config.login })
    }

    /// The schema with a number.
    ///
    /// # Errors
    /// [`Error::Registry`] if the registry does not say.
    pub async fn schema(&self, number: u32) -> Result<Found> {
        let Some(answer) = self.ask(&["schemas", "ids", &number.to_string()]).await? else { return Ok(Found::Nothing) };
        match answer.kind.as_deref() {
            None | Some("AVRO") => {}
            Some(other) => return Ok(Found::Other(other.to_owned())),
        }
        if answer.references.is_empty() {
            return Ok(Found::Avro(answer.schema));
        }
        let mut named = BTreeMap::new();
        let mut wanted = answer.references;
        while let Some(Reference { name, subject, version }) = wanted.pop() {
            if named.contains_key(&name) {
                continue;
            }
            let strange = |detail: String| self.failed(&["subjects", &subject], detail);
            if named.len() == REFERENCES_MAX {
                return Err(strange(format!("schema {number} refers to more than {REFERENCES_MAX} others")));
            }
            let referred = self.ask(&["subjects", &subject, "versions", &version.to_string()]).await?;
            let referred =
                referred.ok_or_else(|| strange(format!("schema {number} refers to it and it is not there")))?;
            let tree: Value = serde_json::from_str(&referred.schema).map_err(|error| strange(error.to_string()))?;
            named.insert(name, tree);
            wanted.extend(referred.references);
        }
        let strange = |error: serde_json::Error| self.failed(&["schemas", "ids"], error.to_string());
        let mut tree: Value = serde_json::from_str(&answer.schema).map_err(strange)?;
        make_whole(&mut tree, None, &mut named);
        Ok(Found::Avro(tree.to_string()))
    }

    /// `None` if the registry does not have it.
    async fn ask(&self, path: &[&str]) -> Result<Option<Answer>> {
        let failed = |detail: String| self.failed(path, detail);
        let mut request = self.client.get(self.url(path)).header("accept", "application/vnd.schemaregistry.v1+json");
        if let Some((name, password)) = &self.login {
            request = request.basic_auth(name, Some(password));
        }
        let mut response = request.send().await.map_err(|error| failed(innermost(&error)))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| failed(innermost(&error)))? {
            body.extend_from_slice(&part);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(failed(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")));
            }
        }
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map(Some)
                .map_err(|error| failed(format!("no answer of a registry: {error}")));
        }
        let code = serde_json::from_slice::<Refusal>(&body).ok().map(|refusal| refusal.error_code);
        match code {
            Some(code) if NOT_THERE.contains(&code) => Ok(None),
            _ => Err(failed(format!("it answers {status}"))),
        }
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    fn failed(&self, path: &[&str], detail: String) -> Error {
        let mut url = self.url(path);
        // Whoever writes a password into an address does not want it in a log.
        if url.set_password(None).is_err() || url.set_username("").is_err() {
            url = self.base.clone();
        }
        Error::Registry { url: url.to_string(), detail }
    }
}

/// What went wrong in the end: the outer errors only say that a request failed.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(cause) = inner.source() {
        inner = cause;
    }
    inner.to_string()
}

/// Puts each named schema where its name occurs first. `namespace` is that of the type around.
fn make_whole(of: &mut Value, namespace: Option<&str>, named: &mut BTreeMap<String, Value>) {
    match of {
        Value::String(name) => {
            let full = namespace.map(|namespace| format!("{namespace}.{name}"));
            let known = full.and_then(|full| named.remove(&full)).or_else(|| named.remove(name.as_str()));
            if let Some(mut known) = known {
                make_whole(&mut known, None, named);
                *of = known;
            }
        }
        Value::Array(branches) => branches.iter_mut().for_each(|branch| make_whole(branch, namespace, named)),
        Value::Object(members) => {
            let own = members.get("namespace").and_then(Value::as_str).map(str::to_owned);
            let name = members.get("name").and_then(Value::as_str);
            let of_name = name.and_then(|name| name.rsplit_once('.')).map(|(namespace, _)| namespace.to_owned());
            let inside = of_name.or(own).or_else(|| namespace.map(str::to_owned));
            for key in ["type", "items", "values"] {
                if let Some(of) = members.get_mut(key) {
                    make_whole(of, inside.as_deref(), named);
                }
            }
            let fields = members.get_mut("fields").and_then(Value::as_array_mut);
            for field in fields.into_iter().flatten() {
                if let Some(of) = field.get_mut("type") {
                    make_whole(of, inside.as_deref(), named);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use serde_json::json;
    use wattline_core::error::Retry;

    use super::*;

    /// Answers these requests (path and query, status, body) in this order, and says what it was asked.
    fn serve(answers: Vec<(u16, String)>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/registry", listener.local_addr().unwrap());
        let serve = move || {
            let answer = |(status, body): (u16, String)| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                let head =
                    format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(body.as_bytes()).unwrap();
                String::from_utf8(request).unwrap()
            };
            answers.into_iter().map(answer).collect()
        };
        let serving = thread::Builder::new().name("registry".to_owned()).spawn(serve).unwrap();
        (url, serving)
    }

    fn registry(url: &str) -> SchemaRegistry {
        let login = Some(("reader".to_owned(), "secret".to_owned()));
        SchemaRegistry::new(SchemaRegistryConfig { url: url.to_owned(), login }).unwrap()
    }

    #[tokio::test]
    async fn a_schema_is_asked_for_by_number_and_with_a_login() {
        let (url, serving) = serve(vec![(200, json!({"schema": "\"string\""}).to_string())]);
        assert_eq!(registry(&url).schema(17).await.unwrap(), Found::Avro("\"string\"".to_owned()));
        let asked = serving.join().unwrap();
        assert!(asked[0].starts_with("GET /registry/schemas/ids/17 HTTP/1.1\r\n"), "{asked:?}");
        assert!(asked[0].contains("authorization: Basic cmVhZGVyOnNlY3JldA=="), "{asked:?}");
    }

    #[tokio::test]
    async fn a_schema_that_refers_to_others_is_made_whole() {
        let reference = |name: &str, subject: &str| json!([{"name": name, "subject": subject, "version": 3}]);
        let outer = r#"{"type":"record","name":"io.a.Reading","fields":[
            {"name":"at","type":["null","Position"]},{"name":"was","type":{"type":"array","items":"io.a.Position"}}]}"#;
        let middle =
            r#"{"type":"record","name":"Position","namespace":"io.a","fields":[{"name":"lat","type":"io.b.Degrees"}]}"#;
        let inner = r#"{"type":"fixed","name":"Degrees","namespace":"io.b","size":4}"#;
        let answers = vec![
            (200, json!({"schema": outer, "references": reference("io.a.Position", "a b")}).to_string()),
            (200, json!({"schema": middle, "references": reference("io.b.Degrees", "deg")}).to_string()),
            (200, json!({"schema": inner}).to_string()),
        ];
        let (url, serving) = serve(answers);
        let Found::Avro(text) = registry(&url).schema(1).await.unwrap() else { panic!("it is an Avro schema") };
        let degrees = json!({"type": "fixed", "name": "Degrees", "namespace": "io.b", "size": 4});
        let position = json!({"type": "record", "name": "Position", "namespace": "io.a",
            "fields": [{"name": "lat", "type": degrees}]});
        let expected = json!({"type": "record", "name": "io.a.Reading", "fields": [
            {"name": "at", "type": ["null", position]},
            {"name": "was", "type": {"type": "array", "items": "io.a.Position"}}]});
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
        assert!(serving.join().unwrap()[1].starts_with("GET /registry/subjects/a%20b/versions/3 "));
    }

    #[tokio::test]
    async fn only_a_registry_can_say_that_there_is_no_such_schema() {
        let answers = vec![
            (404, json!({"error_code": 40_403, "message": "Schema 9 not found"}).to_string()),
            (404, "<html>not here</html>".to_owned()),
            (503, String::new()),
            (401, json!({"error_code": 401, "message": "Unauthorized"}).to_string()),
            (200, "<html>welcome</html>".to_owned()),
            (200, json!({"schema": "syntax = \"proto3\"", "schemaType": "PROTOBUF"}).to_string()),
        ];
        let (url, serving) = serve(answers);
        let registry = registry(&url);
        assert_eq!(registry.schema(9).await.unwrap(), Found::Nothing);
        for said in ["404", "503", "401", "no answer of a registry"] {
            let error = registry.schema(9).await.unwrap_err();
            assert_eq!(error.retry(), Retry::Backoff);
            let text = error.to_string();
            assert!(text.contains(said) && text.contains("/registry/schemas/ids/9"), "{text}");
        }
        assert_eq!(registry.schema(9).await.unwrap(), Found::Other("PROTOBUF".to_owned()));
        serving.join().unwrap();
        assert_eq!(registry.schema(9).await.unwrap_err().retry(), Retry::Backoff, "nobody is there any more");
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for url in ["registry:8081/x", "ftp://registry", "registry"] {
            let config = SchemaRegistryConfig { url: url.to_owned(), login: None };
            assert!(matches!(SchemaRegistry::new(config), Err(Error::RegistrySettings { .. })), "{url}");
        }
    }
}
