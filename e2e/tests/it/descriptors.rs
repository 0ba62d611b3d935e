//! The contracts, as their descriptors have them: every method, and messages made to order.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// All contracts.
pub(crate) struct Contracts {
    pub(crate) methods: Vec<Method>,
    messages: BTreeMap<String, DescriptorProto>,
}

/// A method.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    /// `hawser.vault.v1.TokenVaultService/GetGrant`, as the policy names it.
    pub(crate) name: String,
    /// The request's message.
    pub(crate) input: String,
    /// Whether it answers with a stream.
    pub(crate) streams: bool,
}

/// What to put into a field.
pub(crate) enum Filling {
    /// Nothing.
    Nothing,
    /// A text, or bytes.
    Text(String),
    /// A number, of any type.
    Number(i64),
    /// What belongs into the fields of the message.
    Fields,
}

/// The services that serve a package, as `hawser.json` names them.
const ALL: [&str; 5] = ["broker", "directory", "ingest", "scheduler", "vault"];
/// A message within messages within messages.
const DEEPEST: usize = 4;

impl Contracts {
    pub(crate) fn load() -> Self {
        let set =
            FileDescriptorSet::decode(contracts::FILE_DESCRIPTOR_SET).expect("it is compiled in");
        let mut all = Self {
            methods: Vec::new(),
            messages: BTreeMap::new(),
        };
        for file in &set.file {
            for message in &file.message_type {
                all.keep(file.package(), message);
            }
            for service in &file.service {
                all.methods
                    .extend(service.method.iter().map(|method| Method {
                        name: format!("{}.{}/{}", file.package(), service.name(), method.name()),
                        input: method.input_type().trim_start_matches('.').to_owned(),
                        streams: method.server_streaming(),
                    }));
            }
        }
        assert!(
            all.methods.len() > 100,
            "the methods are not found any more"
        );
        all
    }

    /// The method of this name: `ConnectionService/GetConnection`.
    pub(crate) fn method(&self, short: &str) -> &Method {
        self.methods
            .iter()
            .find(|method| method.short() == short)
            .unwrap_or_else(|| panic!("there is no method {short}"))
    }

    fn keep(&mut self, outer: &str, message: &DescriptorProto) {
        let name = format!("{outer}.{}", message.name());
        for nested in &message.nested_type {
            self.keep(&name, nested);
        }
        self.messages.insert(name, message.clone());
    }

    /// The fields of a message.
    pub(crate) fn fields(&self, message: &str) -> &[FieldDescriptorProto] {
        &self
            .messages
            .get(message)
            .unwrap_or_else(|| panic!("there is no message {message}"))
            .field
    }

    /// Whether a path such as `tenant.quotas.connections` leads to a field of the message, or to a choice among several.
    /// What lies in a map, a list, or in JSON is not looked into.
    pub(crate) fn has_path(&self, message: &str, path: &str) -> bool {
        let (name, rest) = path.split_once('.').unwrap_or((path, ""));
        let name = name.split('[').next().unwrap_or(name);
        let choices = &self.messages[message].oneof_decl;
        if choices.iter().any(|choice| choice.name() == path) {
            return true;
        }
        let Some(field) = self
            .fields(message)
            .iter()
            .find(|field| field.name() == name)
        else {
            return false;
        };
        let inner = field.type_name().trim_start_matches('.');
        let opaque = field.label() == Label::Repeated || inner.starts_with("google.protobuf.");
        rest.is_empty() || opaque || (field.r#type() == Type::Message && self.has_path(inner, rest))
    }

    /// Encodes a message of which `fill` says what each field holds, by the field's path.
    pub(crate) fn encode(
        &self,
        message: &str,
        fill: &dyn Fn(&str, &FieldDescriptorProto) -> Filling,
    ) -> Bytes {
        let mut buffer = BytesMut::new();
        self.encode_into(message, "", 0, fill, &mut buffer);
        buffer.freeze()
    }

    fn encode_into(
        &self,
        message: &str,
        path: &str,
        depth: usize,
        fill: &dyn Fn(&str, &FieldDescriptorProto) -> Filling,
        buffer: &mut BytesMut,
    ) {
        let mut taken = Vec::new();
        for field in self.fields(message) {
            // Of several only one can be there.
            if let Some(choice) = field.oneof_index
                && taken.contains(&choice)
            {
                continue;
            }
            let path = if path.is_empty() {
                field.name().to_owned()
            } else {
                format!("{path}.{}", field.name())
            };
            let filling = fill(&path, field);
            if matches!(filling, Filling::Nothing) {
                continue;
            }
            taken.extend(field.oneof_index);
            let tag = field.number() as u32;
            match (field.r#type(), filling) {
                (Type::Message, _) if depth < DEEPEST => {
                    let inner = field.type_name().trim_start_matches('.');
                    let mut content = BytesMut::new();
                    self.encode_into(inner, &path, depth + 1, fill, &mut content);
                    put_bytes(tag, &content, buffer);
                }
                (Type::String | Type::Bytes, Filling::Text(text)) => {
                    put_bytes(tag, text.as_bytes(), buffer);
                }
                (Type::Double, Filling::Number(number)) => {
                    encode_key(tag, WireType::SixtyFourBit, buffer);
                    buffer.put_f64_le(number as f64);
                }
                (
                    Type::Int32
                    | Type::Int64
                    | Type::Uint32
                    | Type::Uint64
                    | Type::Enum
                    | Type::Bool,
                    Filling::Number(number),
                ) => {
                    encode_key(tag, WireType::Varint, buffer);
                    encode_varint(number as u64, buffer);
                }
                _ => {}
            }
        }
    }
}

impl Method {
    /// `TokenVaultService/GetGrant`, as people name it.
    pub(crate) fn short(&self) -> &str {
        let (service, _) = self.name.split_once('/').expect("service/method");
        let at = service.rfind('.').map_or(0, |dot| dot + 1);
        &self.name[at..]
    }

    /// The method's own name.
    pub(crate) fn verb(&self) -> &str {
        self.name
            .split_once('/')
            .map_or(self.name.as_str(), |(_, verb)| verb)
    }

    /// Who serves it, as `hawser.json` names them.
    pub(crate) fn served_by(&self) -> Vec<&'static str> {
        let package = self.name.split('.').nth(1).unwrap_or_default();
        let serves = |service: &str| service == package || package == "operations";
        ALL.into_iter().filter(|service| serves(service)).collect()
    }
}

fn put_bytes(tag: u32, bytes: &[u8], buffer: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}

#[test]
fn a_message_made_to_order_is_what_prost_reads() {
    use contracts::directory::v1::CreateTenantRequest;
    let contracts = Contracts::load();
    let input = "hawser.directory.v1.CreateTenantRequest";
    let encoded = contracts.encode(input, &|path, field| match (path, field.r#type()) {
        ("tenant.quotas.connections", _) => Filling::Number(-1),
        (_, Type::String) => Filling::Text(path.to_owned()),
        (_, Type::Message) => Filling::Fields,
        _ => Filling::Nothing,
    });
    let tenant = CreateTenantRequest::decode(encoded)
        .expect("it can be read")
        .tenant
        .expect("it is there");
    assert_eq!(tenant.subdomain, "tenant.subdomain");
    assert_eq!(tenant.allowed_origins, ["tenant.allowed_origins"]);
    assert_eq!(tenant.quotas.expect("it is there").connections, -1);
    assert!(contracts.has_path(input, "tenant.quotas.connections"));
    assert!(!contracts.has_path(input, "tenant.quotas.name"));
}
