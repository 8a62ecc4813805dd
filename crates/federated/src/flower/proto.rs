//! The messages of Flower's Fleet and Runtime services that are used here, field by field as `flwr` 1.34 to 1.42 have them.

use prost::{Message, Oneof};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field:meta])* $id:ident: $type:ty),* $(,)? })*) => {
        $($(#[$doc])* #[derive(Clone, PartialEq, Message)] pub struct $name { $($(#[$field])* pub $id: $type,)* })*
    };
}

messages! {
    /// `node.proto`.
    Node { #[prost(uint64, tag = "1")] /// Its number; 1 is the SuperLink itself.
        node_id: u64 }
    /// `error.proto`.
    Error { #[prost(sint64, tag = "1")] /// Flower's code.
        code: i64, #[prost(string, tag = "2")] /// In words.
        reason: String }
    /// A list of `double`.
    DoubleList { #[prost(double, repeated, tag = "1")] /// Values.
        vals: Vec<f64> }
    /// A list of `sint64`.
    SintList { #[prost(sint64, repeated, tag = "1")] /// Values.
        vals: Vec<i64> }
    /// A list of `uint64`.
    UintList { #[prost(uint64, repeated, tag = "1")] /// Values.
        vals: Vec<u64> }
    /// A list of `bool`.
    BoolList { #[prost(bool, repeated, tag = "1")] /// Values.
        vals: Vec<bool> }
    /// A list of `string`.
    StringList { #[prost(string, repeated, tag = "1")] /// Values.
        vals: Vec<String> }
    /// A list of `bytes`.
    BytesList { #[prost(bytes = "vec", repeated, tag = "1")] /// Values.
        vals: Vec<Vec<u8>> }
    /// A value of a metric record; a configuration record's has more kinds.
    RecordValue { #[prost(oneof = "Scalar", tags = "1, 2, 3, 4, 5, 6, 21, 22, 23, 24, 25, 26")] /// The value.
        value: Option<Scalar> }
    /// An entry of a record.
    Item { #[prost(string, tag = "1")] /// Name.
        key: String, #[prost(message, optional, tag = "2")] /// Value.
        value: Option<RecordValue> }
    /// `MetricRecord` and `ConfigRecord`, whose values differ only in the kinds they allow: the kinds of metrics bear the same numbers in both.
    Values { #[prost(message, repeated, tag = "1")] /// Entries.
        items: Vec<Item> }
    /// `Metadata` of a message.
    Metadata {
        #[prost(uint64, tag = "1")] /// Run.
        run_id: u64,
        #[prost(string, tag = "2")] /// Hash of the message's object; empty inside the object.
        message_id: String,
        #[prost(uint64, tag = "3")] /// Sender.
        src_node_id: u64,
        #[prost(uint64, tag = "4")] /// Receiver.
        dst_node_id: u64,
        #[prost(string, tag = "5")] /// What it answers.
        reply_to_message_id: String,
        #[prost(string, tag = "6")] /// Free text, usually the round.
        group_id: String,
        #[prost(double, tag = "7")] /// Seconds it may live.
        ttl: f64,
        #[prost(string, tag = "8")] /// `train`, `evaluate`, `query`, each with a suffix behind a dot if wanted.
        message_type: String,
        #[prost(double, tag = "9")] /// Unix time.
        created_at: f64,
        #[prost(uint64, optional, tag = "10")] /// Task that sent it.
        src_task_id: Option<u64>,
        #[prost(uint64, optional, tag = "11")] /// Task that gets it.
        dst_task_id: Option<u64>,
    }
    /// An empty `RecordDict`: content travels as objects.
    NoContent {}
    /// `message.proto`.
    Envelope {
        #[prost(message, optional, tag = "1")] /// Where from, where to.
        metadata: Option<Metadata>,
        #[prost(message, optional, tag = "2")] /// Present and empty where there is content.
        content: Option<NoContent>,
        #[prost(message, optional, tag = "3")] /// Instead of content.
        error: Option<Error>,
    }
    /// A message's objects by their hashes.
    ObjectTree {
        #[prost(string, tag = "1")] /// SHA-256 in hexadecimal digits.
        object_id: String,
        #[prost(message, repeated, tag = "2")] /// What it is made of.
        children: Vec<ObjectTree>,
    }
    /// Fleet.
    RegisterNodeRequest { #[prost(bytes = "vec", tag = "1")] /// PEM.
        public_key: Vec<u8> }
    /// Fleet.
    RegisterNodeResponse { #[prost(uint64, tag = "1")] /// Its number.
        node_id: u64 }
    /// Fleet.
    ActivateNodeRequest { #[prost(bytes = "vec", tag = "1")] /// PEM.
        public_key: Vec<u8>, #[prost(double, tag = "2")] /// Seconds.
        heartbeat_interval: f64 }
    /// Fleet.
    ActivateNodeResponse { #[prost(uint64, tag = "1")] /// Its number.
        node_id: u64 }
    /// Fleet: deactivate and unregister.
    NodeIdRequest { #[prost(uint64, tag = "1")] /// Its number.
        node_id: u64 }
    /// An answer without fields.
    Nothing {}
    /// Fleet.
    HeartbeatRequest { #[prost(message, optional, tag = "1")] /// Who.
        node: Option<Node>, #[prost(double, tag = "2")] /// Seconds.
        heartbeat_interval: f64 }
    /// Fleet and Runtime.
    HeartbeatResponse { #[prost(bool, tag = "1")] /// Known.
        success: bool }
    /// Fleet.
    PullMessagesRequest { #[prost(message, optional, tag = "1")] /// Who.
        node: Option<Node> }
    /// Fleet and Runtime (where they have numbers 1 and 2).
    PullMessagesResponse {
        #[prost(message, repeated, tag = "2")] /// Messages, at most one.
        messages: Vec<Envelope>,
        #[prost(message, repeated, tag = "3")] /// Their trees.
        trees: Vec<ObjectTree>,
    }
    /// Fleet.
    PushMessagesRequest {
        #[prost(message, optional, tag = "1")] /// Who; absent in the Runtime service.
        node: Option<Node>,
        #[prost(message, repeated, tag = "2")] /// Messages.
        messages: Vec<Envelope>,
        #[prost(message, repeated, tag = "3")] /// Their trees.
        trees: Vec<ObjectTree>,
        #[prost(double, repeated, tag = "4")] /// Seconds of computation.
        runtimes: Vec<f64>,
    }
    /// Fleet.
    PushMessagesResponse {
        #[prost(string, repeated, tag = "3")] /// Objects that are not there yet.
        objects_to_push: Vec<String>,
        #[prost(string, tag = "4")] /// Of the upload.
        session_id: String,
    }
    /// Runtime.
    PushAppMessagesResponse {
        #[prost(string, repeated, tag = "1")] /// Numbers of the messages; empty text for a refused one.
        message_ids: Vec<String>,
        #[prost(string, repeated, tag = "2")] /// Objects that are not there yet.
        objects_to_push: Vec<String>,
        #[prost(string, tag = "3")] /// Of the upload.
        session_id: String,
    }
    /// Runtime.
    PullAppMessagesRequest { #[prost(string, repeated, tag = "2")] /// Messages to which answers are wanted.
        message_ids: Vec<String> }
    /// Runtime.
    PullAppMessagesResponse {
        #[prost(message, repeated, tag = "1")] /// Answers.
        messages: Vec<Envelope>,
        #[prost(message, repeated, tag = "2")] /// Their trees.
        trees: Vec<ObjectTree>,
    }
    /// Fleet and Runtime.
    PushObjectRequest {
        #[prost(message, optional, tag = "1")] /// Who.
        node: Option<Node>,
        #[prost(uint64, tag = "2")] /// Run.
        run_id: u64,
        #[prost(string, tag = "3")] /// Hash.
        object_id: String,
        #[prost(bytes = "vec", tag = "4")] /// Content.
        content: Vec<u8>,
        #[prost(string, tag = "5")] /// Of the upload.
        session_id: String,
    }
    /// Fleet and Runtime.
    PushObjectResponse { #[prost(bool, tag = "1")] /// Whether it was taken.
        stored: bool }
    /// Fleet and Runtime.
    PullObjectRequest {
        #[prost(message, optional, tag = "1")] /// Who.
        node: Option<Node>,
        #[prost(uint64, tag = "2")] /// Run.
        run_id: u64,
        #[prost(string, tag = "3")] /// Hash.
        object_id: String,
    }
    /// Fleet and Runtime.
    PullObjectResponse {
        #[prost(bool, tag = "1")] /// Whether it belongs to the run.
        found: bool,
        #[prost(bool, tag = "2")] /// Whether it has been uploaded.
        available: bool,
        #[prost(bytes = "vec", tag = "3")] /// Content.
        content: Vec<u8>,
    }
    /// Fleet and Runtime.
    ConfirmRequest {
        #[prost(message, optional, tag = "1")] /// Who.
        node: Option<Node>,
        #[prost(uint64, tag = "2")] /// Run.
        run_id: u64,
        #[prost(string, tag = "3")] /// Hash of the message.
        message_object_id: String,
    }
    /// Runtime.
    NodeInfo {
        #[prost(uint64, tag = "1")] /// Its number.
        node_id: u64,
        #[prost(string, tag = "4")] /// `online` or not.
        status: String,
        #[prost(string, tag = "6")] /// When it last connected; another time after a restart.
        last_activated_at: String,
        #[prost(bytes = "vec", tag = "11")] /// PEM.
        public_key: Vec<u8>,
    }
    /// Runtime.
    GetNodesResponse { #[prost(message, repeated, tag = "1")] /// Those that are there.
        nodes: Vec<NodeInfo> }
    /// Runtime.
    AcquireTaskRequest { #[prost(string, repeated, tag = "1")] /// Kinds.
        supported_task_types: Vec<String> }
    /// A unit of work.
    Task {
        #[prost(uint64, tag = "1")] /// Its number.
        task_id: u64,
        #[prost(string, tag = "2")] /// Its kind.
        kind: String,
        #[prost(uint64, tag = "3")] /// Run.
        run_id: u64,
    }
    /// Runtime.
    AcquireTaskResponse { #[prost(message, optional, tag = "1")] /// Absent when there is none.
        task: Option<Task>, #[prost(string, tag = "2")] /// For the header.
        token: String }
    /// `message.proto`; content that is not used here is kept as it came.
    Context {
        #[prost(uint64, tag = "1")] /// Run.
        run_id: u64,
        #[prost(uint64, tag = "2")] /// Node.
        node_id: u64,
        #[prost(message, repeated, tag = "3")] /// Settings of the node.
        node_config: Vec<Setting>,
        #[prost(message, optional, tag = "4")] /// State between messages: an empty `RecordDict`.
        state: Option<NoContent>,
        #[prost(message, repeated, tag = "5")] /// Settings of the run.
        run_config: Vec<Setting>,
        #[prost(uint64, tag = "6")] /// Series of runs.
        series_id: u64,
    }
    /// An entry of a context's map.
    Setting {
        #[prost(string, tag = "1")] /// Name.
        key: String,
        #[prost(message, optional, tag = "2")] /// Value.
        value: Option<SettingValue>,
    }
    /// A value in a context's map.
    SettingValue { #[prost(oneof = "SettingScalar", tags = "1, 6, 8, 13, 14, 15")] /// The value.
        value: Option<SettingScalar> }
    /// Only the number of a run.
    Run { #[prost(uint64, tag = "1")] /// Run.
        run_id: u64 }
    /// Runtime.
    PullTaskInputResponse {
        #[prost(message, optional, tag = "1")] /// What the task may remember.
        context: Option<Context>,
        #[prost(message, optional, tag = "2")] /// The run.
        run: Option<Run>,
        #[prost(uint64, tag = "5")] /// The task.
        task_id: u64,
    }
    /// Runtime.
    PushTaskOutputRequest {
        #[prost(message, optional, tag = "1")] /// What the task remembers.
        context: Option<Context>,
        #[prost(string, tag = "2")] /// `completed` or `failed`.
        sub_status: String,
        #[prost(string, tag = "3")] /// In words.
        details: String,
        #[prost(double, optional, tag = "4")] /// Seconds of a client's computation.
        clientapp_runtime: Option<f64>,
    }
}

/// A value of a record.
#[derive(Clone, PartialEq, Oneof)]
#[allow(missing_docs)]
pub enum Scalar {
    #[prost(double, tag = "1")]
    Double(f64),
    #[prost(sint64, tag = "2")]
    Sint(i64),
    #[prost(uint64, tag = "3")]
    Uint(u64),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(string, tag = "5")]
    Text(String),
    #[prost(bytes = "vec", tag = "6")]
    Bytes(Vec<u8>),
    #[prost(message, tag = "21")]
    Doubles(DoubleList),
    #[prost(message, tag = "22")]
    Sints(SintList),
    #[prost(message, tag = "23")]
    Uints(UintList),
    #[prost(message, tag = "24")]
    Bools(BoolList),
    #[prost(message, tag = "25")]
    Texts(StringList),
    #[prost(message, tag = "26")]
    ByteStrings(BytesList),
}

/// A value of a context's map.
#[derive(Clone, PartialEq, Oneof)]
#[allow(missing_docs)]
pub enum SettingScalar {
    #[prost(double, tag = "1")]
    Double(f64),
    #[prost(uint64, tag = "6")]
    Uint(u64),
    #[prost(sint64, tag = "8")]
    Sint(i64),
    #[prost(bool, tag = "13")]
    Bool(bool),
    #[prost(string, tag = "14")]
    Text(String),
    #[prost(bytes = "vec", tag = "15")]
    Bytes(Vec<u8>),
}
