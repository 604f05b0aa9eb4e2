//! What clients may rely on: the names and numbers of the client API, and what reflection shows.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

/// Names and numbers that stay: a line for each message and enum.
const FIXED: &str = include_str!("surface.txt");

fn reflected() -> FileDescriptorSet {
    FileDescriptorSet::decode(triad_proto::FILE_DESCRIPTOR_SET).expect("built from the proto files")
}

fn message_lines(message: &DescriptorProto) -> (String, BTreeSet<String>) {
    let field =
        |field: &prost_types::FieldDescriptorProto| format!("{}={}", field.name(), field.number());
    (format!("message {}", message.name()), message.field.iter().map(field).collect())
}

fn enum_lines(one: &EnumDescriptorProto) -> (String, BTreeSet<String>) {
    let value = |value: &prost_types::EnumValueDescriptorProto| {
        format!("{}={}", value.name(), value.number())
    };
    (format!("enum {}", one.name()), one.value.iter().map(value).collect())
}

#[test]
fn no_fixed_name_or_number_has_changed() {
    let set = reflected();
    let files = || set.file.iter().filter(|file| file.package() == "triad.v1");
    let messages = files().flat_map(|file| &file.message_type).map(message_lines);
    let enums = files().flat_map(|file| &file.enum_type).map(enum_lines);
    let built: Vec<_> = messages.chain(enums).collect();
    for line in FIXED.lines() {
        let (name, fields) = line.split_once(':').expect("name: fields");
        let (_, have) = built
            .iter()
            .find(|(known, _)| known == name)
            .unwrap_or_else(|| panic!("{name} is gone"));
        for field in fields.split_whitespace() {
            assert!(have.contains(field), "{name} has no {field} any more");
        }
    }
}

#[test]
fn reflection_shows_the_client_api_alone_with_all_it_imports() {
    let set = reflected();
    let names: Vec<_> = set.file.iter().map(prost_types::FileDescriptorProto::name).collect();
    let has = |name: &str| names.contains(&name);
    assert!(names.iter().all(|name| !name.contains("peer")), "{names:?}");
    for file in &set.file {
        assert!(
            file.dependency.iter().all(|import| has(import)),
            "{} lacks an import",
            file.name()
        );
        assert!(file.source_code_info.is_none(), "comments only make the binary larger");
    }
    let methods: BTreeSet<_> = set
        .file
        .iter()
        .flat_map(|file| &file.service)
        .flat_map(|service| {
            service.method.iter().map(move |method| format!("{}.{}", service.name(), method.name()))
        })
        .collect();
    let expected = [
        "ClusterService.Bootstrap",
        "ClusterService.CancelOperation",
        "ClusterService.Decommission",
        "ClusterService.DescribeRing",
        "ClusterService.Force",
        "ClusterService.GetReadiness",
        "ClusterService.Join",
        "ClusterService.Leave",
        "ClusterService.ListNodes",
        "ClusterService.ListOperations",
        "ClusterService.Locate",
        "ClusterService.Replace",
        "ClusterService.Status",
        "ClusterService.WatchOperation",
        "KvService.Delete",
        "KvService.Get",
        "KvService.Put",
    ];
    assert_eq!(methods.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}
