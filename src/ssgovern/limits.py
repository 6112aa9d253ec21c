"""Every limit of the system in one place. Sizes are bytes of UTF-8 or of the encoded form.

A limit is checked before memory is spent on what it limits, and the error names it.
"""

from __future__ import annotations

# --- names and values ---------------------------------------------------------------------
NAME_BYTES_MAX = 256
"""Namespace, group, service, pattern and instance id, each."""
HOST_BYTES_MAX = 255
ZONE_BYTES_MAX = 128
VERSION_BYTES_MAX = 128
WEIGHT_MAX = 10_000.0
METADATA_PAIRS_MAX = 64
METADATA_KEY_BYTES_MAX = 128
METADATA_VALUE_BYTES_MAX = 4096
INSTANCE_BYTES_MAX = 16 << 10
"""One encoded instance, all of it."""
CLIENT_NAME_BYTES_MAX = 128

# --- messages -----------------------------------------------------------------------------
FRAME_HEADER_BYTES = 12
FRAME_BODY_BYTES_MAX = 1 << 20
"""What a receiver accepts in one frame. A node sends at most `FRAME_CHUNK_BYTES`."""
FRAME_CHUNK_BYTES = 256 << 10
"""A longer body is sent as several frames, so that a heartbeat can pass between them."""
MESSAGE_BYTES_MAX = 256 << 20
"""What a client accepts as one message put together from several frames."""
REGISTER_BATCH_MAX = 1000
LIST_PAGE_MAX = 1000
LIST_SCAN_MAX = 20_000
"""Names looked at for one page; a page may be short because of it."""

# --- a service, a session, a shard --------------------------------------------------------
INSTANCES_PER_SERVICE_MAX = 100_000
INSTANCES_PER_SESSION_MAX = 100_000
"""In one shard, which is where it is decided."""
LEASE_TTL_MS_MIN = 2_000
LEASE_TTL_MS_MAX = 3_600_000
LEASE_TTL_MS_DEFAULT = 15_000
RENEWALS_MAX = 1_000
"""Leases renewed with one request."""
ADMIN_STATES_PER_SERVICE_MAX = 10_000
"""Instances an operator took out of service, remembered even while they are not registered."""
SUBSCRIPTIONS_PER_SESSION_MAX = 10_000
SERVICES_PER_PATTERN_MAX = 100_000
HISTORY_CHANGES_PER_SHARD = 512
"""Changes kept for subscribers that resume; older ones take a snapshot."""

ENDS_RETRIED_MAX = 1024
"""Ends of sessions proposed again with one tick, after their shard could take nothing."""
EPOCH_STARTS_KEPT = 64
"""A subscriber that comes from an older epoch takes a snapshot."""
CATCH_UP_SLICE = 128
"""Services a subscriber is brought up to date with before the loop gets a turn."""
SNAPSHOT_CACHE_BYTES = 32 << 20
"""Encoded snapshots kept for the next subscriber of the same service."""

# --- people who look on -------------------------------------------------------------------
EVENTS_MAX = 10_000
EVENTS_BYTES_MAX = 12 << 20
"""Changes of instances that a node remembers for people; of these, bytes of instances."""
CLUSTER_EVENTS_MAX = 1_000
CLUSTER_EVENT_CHARS_MAX = 512
"""Of a sentence about the cluster; longer ones are cut."""
EVENTS_PAGE_MAX = 500
EVENTS_WAIT_MS_MAX = 30_000
EVENTS_LOOK_MS = 100
"""Who waits for an event is looked after so often."""
EVENTS_WAITING_MAX = 256
"""Questions that wait for an event, on one node. More: `OverloadedError`."""
EVENT_FIELDS_MAX = 32
EVENT_VALUE_CHARS_MAX = 200
"""Of a value before or after a change."""
SESSIONS_PAGE_MAX = 1_000
SESSIONS_SCAN_MAX = 5_000
"""Sessions looked at for one page; a page may be short because of it."""
SESSIONS_ORDER_MS = 2_000
"""Pages of sessions are read from an order that is made anew after so long."""

# --- connections and queues ---------------------------------------------------------------
CONNECTIONS_MAX = 100_000
HELLO_TIMEOUT_MS = 5_000
IN_FLIGHT_PER_CONNECTION_MAX = 1024
"""Requests waiting for the log on one connection. More: `OverloadedError`."""
UNCOMMITTED_ENTRIES_MAX = 65_536
UNCOMMITTED_BYTES_MAX = 64 << 20
"""What waits for the log on the whole node. More: `OverloadedError`."""
BATCH_ENTRIES_MAX = 1024
BATCH_BYTES_MAX = 8 << 20
"""One write to the log."""
OUTBOUND_SOFT_BYTES = 1 << 20
"""Beyond it a connection's deltas collapse to snapshots and its requests are refused."""
OUTBOUND_HARD_BYTES = 64 << 20
"""Beyond it a connection that does not read is closed."""
OUTBOUND_STALL_MS = 30_000
"""A connection that takes no byte of a full buffer for so long is closed."""
FAN_OUT_SLICE = 512
"""Subscribers written to before the loop gets a turn."""
APPLIED_SERVICES_MAX = 2_048
"""Services of which a node keeps up to where one subscriber has applied them; of others it asks."""
APPLIED_PER_MESSAGE_MAX = 1_000
"""Services in one message about it."""
APPLIED_CHANGES_MAX = 1_024
"""Services of which a node remembers when their last changes were committed."""
APPLIED_CHANGES_PER_SERVICE_MAX = 16
APPLIED_SCAN_MAX = 20_000
"""Subscribers looked at, with each scrape of the metrics, for the one that lags most."""
APPLIED_DEPARTED_MS = 5_000
"""So long a subscriber whose connection was lost counts at most, if its session lives."""
AWAIT_APPLIED_MAX = 64
"""Requests that wait for subscribers, on one node. More: `OverloadedError`."""
AWAIT_APPLIED_MS_MAX = 30_000
AWAIT_APPLIED_NAMED_MAX = 20
"""Subscribers named in one answer; the others are counted."""
SUBSCRIBERS_PAGE_MAX = 1_000
CLUSTER_COMMANDS_MAX = 16
"""Commands to the cluster that one node sees to at once."""
FORWARD_TIMEOUT_MS = 5_000
"""How long a node tries to have a request answered that other nodes are to answer."""
FORWARD_DIAL_MS = 2_000
"""How long a node waits for another to take a connection on a client's behalf."""
FORWARDED_MAX = 4096
"""Requests of clients that other nodes are asked for at once. More: `OverloadedError`."""

# --- HTTP ---------------------------------------------------------------------------------
HTTP_CONNECTIONS_MAX = 1_024
HTTP_HEAD_BYTES_MAX = 16 << 10
"""Request line and headers together."""
HTTP_BODY_BYTES_MAX = 64 << 10
HTTP_HEAD_MS = 5_000
"""From the first byte of a request, or from the connection, to the end of its headers."""
HTTP_REQUEST_MS = 30_000
"""From the headers to the last byte of the answer that the client has taken."""
HTTP_IDLE_MS = 15_000
"""A connection that asks nothing more."""
HTTP_LINGER_MS = 1_000
"""For a client to read why it is refused, while what it still sends is thrown away."""
HTTP_LINGER_BYTES_MAX = 8 << 20
HTTP_STOP_MS = 2_000
"""Requests under way when the node stops are given so long."""
HTTP_PAGE_MAX = 1_000
"""Services, or instances, in one answer."""
HTTP_PAGE_DEFAULT = 100
HTTP_QUERY_PAIRS_MAX = 32
HTTP_FORWARD_MS = 8_000
"""A request that goes through the node's own client: long enough for a failover."""
HTTP_PAIRS_MAX = 8
"""Pairs of metadata that a filter names."""
HTTP_SCAN_MAX = 5_000
"""Instances looked at for one page that a filter makes; the page may be short because of it."""
HTTP_SCAN_PAGES_MAX = 20
"""Pages of services looked at for one that a filter makes; it may be short because of it."""
HTTP_PAGE_CACHE_BYTES = 16 << 20
"""Answers kept for who asks again before the service changes."""
HTTP_WATCHES_MAX = 512
"""Requests that wait for changes or stream them, together."""
HTTP_WAIT_MS = 60_000
"""The longest wait of one request for a change."""
HTTP_WATCH_LOOK_MS = 1_000
"""How often who waits looks whether the node still holds the shard."""
HTTP_STREAM_BEAT_MS = 10_000
"""A stream in which nothing happens says so, so that either end sees that the other is gone."""
HTTP_EVENT_INSTANCES_MAX = 500
"""Instances in one event of a stream; a larger list comes in parts."""
HTTP_RENEWALS_MAX = 500
"""Leases renewed by one request."""
HTTP_LEASE_CHARS_MAX = 64
"""A lease as a header or a body carries it."""

HTTP_LOGIN_MS = 12 * 3_600_000
"""A log-in to the console lasts so long."""
HTTP_LOGINS_MAX = 10_000
"""Log-ins of one node; the oldest ends for a new one."""
HTTP_LOGIN_BYTES_MAX = 4 << 10
HTTP_LOGIN_FAILURES_MAX = 5
"""So many log-ins in a row may fail, of one user or from one address, without a pause."""
HTTP_LOGIN_FAILURES_MS = 15 * 60_000
"""Without a failure for so long they count anew."""
HTTP_LOGIN_PAUSE_MS_MAX = 60_000
"""The longest pause; a longer one would let anybody keep a user out."""
HTTP_LOGIN_ATTEMPTS_MAX = 10_000
"""Users and addresses whose failures are remembered."""

# --- access -------------------------------------------------------------------------------
ACCESS_USERS_MAX = 1_000
ACCESS_TOKENS_MAX = 10_000
ACCESS_TOKENS_FORGOTTEN_MAX = 100
"""Tokens that are over, removed with one new one when there is no more room."""
ACCESS_ROLES_MAX = 256
ACCESS_GRANTS_MAX = 32
"""Of one role."""
ACCESS_ROLES_EACH_MAX = 16
"""Of one user or token."""
ACCESS_NAME_BYTES_MAX = 64
ACCESS_NOTE_BYTES_MAX = 256
ACCESS_PASSWORD_BYTES_MAX = 256
ACCESS_PASSWORD_CHARS_MIN = 10
ACCESS_PASSWORD_HASH_BYTES_MAX = 256
ACCESS_TOKEN_BYTES_MAX = 256
AUDIT_ENTRIES_KEPT = 2_000
"""Entries of the audit in memory, to be asked for."""
AUDIT_PAGE_MAX = 500
AUDIT_TEXT_CHARS_MAX = 512
AUDIT_FIELDS_MAX = 32
AUDIT_REFUSALS_PER_S = 20
"""Refusals written down; more are counted."""
AUDIT_WAITING_MAX = 4_096
"""Entries waiting for the disk; more are lost, and counted."""
AUDIT_FILE_BYTES = 8 << 20
AUDIT_FILES_KEPT = 8
AUDIT_READ_BYTES = 1 << 20
"""Of the newest file, read at the start."""
ACCESS_COMMANDS_MAX = 16
"""Changes of access that one node sees to, one after the other. More: `OverloadedError`."""
ACCESS_PASSWORDS_WAITING_MAX = 16
"""Passwords being hashed or compared. More: `OverloadedError`."""

# --- the console --------------------------------------------------------------------------
CONSOLE_TICK_MS = 700
"""An open page is looked at so often; it is told only what changed."""
CONSOLE_PERIOD_MS = 1_000
"""What all pages share is collected at most so often."""
CONSOLE_REST_MS = 10_000
"""Other nodes that are slow to answer are left alone up to so long."""
CONSOLE_ASK_MS = 2_000
CONSOLE_PATIENCE_MS = 150
"""A page waits so long for other nodes before it is shown; what they say comes later."""
CONSOLE_GAP_MS = 10_000
"""A longer pause between two samples is a gap in the charts."""
CONSOLE_SAMPLES_MAX = 300
CONSOLE_STREAMS_MAX = 64
"""Open pages of one node that are kept live at once."""
CONSOLE_STREAM_MS = 25_000
"""A page's stream ends after so long, and the page asks for the next."""
CONSOLE_SERVICES_MAX = 100_000
"""Services of one namespace asked of one other node."""
CONSOLE_PAGE = 50
"""Rows of a table."""
CONSOLE_ROWS_MAX = 200
"""Rows of a table that is not read page by page: events, sessions, entries of the audit."""
CONSOLE_ANSWERS_MAX = 64
"""Answers of other nodes that are kept for a second."""
CONSOLE_ACTION_MS = 10_000
CONSOLE_DRAIN_MS = 20_000
"""How long a drain waits for subscribers."""

# --- client -------------------------------------------------------------------------------
CLIENT_IN_FLIGHT_MAX = 4096
CLIENT_CHANGES_QUEUED_MAX = 1024
"""Changes a subscription keeps for a caller that does not read them; older ones merge."""
CLIENT_EVENTS_QUEUED_MAX = 2_000
"""Events that wait for a reader; nodes are asked for more when there is room."""
CLIENT_CACHE_BYTES_MAX = 256 << 20

# --- storage ------------------------------------------------------------------------------
WAL_SEGMENT_BYTES = 64 << 20
WAL_RESERVE_BYTES = 4 << 20
"""Room made ahead of the log's end, in one step."""
WAL_RECORD_BYTES_MAX = 1 << 20
EPOCH_MAX = (1 << 32) - 2
"""And of Raft's terms. What is on disk has 32 bits; there must be a next one."""
REVISION_MAX = (1 << 63) - 1
"""And of all that counts entries or bytes: nothing that is said to us may overflow on disk."""
SNAPSHOT_CHUNK_BYTES = 256 << 10
BACKUP_PIECE_BYTES_MAX = 64 << 20
"""One chunk of a shard's state, or the manifest, in a backup."""
BACKUP_READS_MAX = 16
"""Shards that a node holds as they were, for those who are reading them."""
BACKUP_READ_IDLE_MS = 60_000
"""Who asks for no further chunk for so long begins with the shard again."""
EPOCHS_PER_LIFE = 1 << 16
"""By how much a restore, or a repair that loses something, raises what otherwise rises by one."""

# --- the controller and its nodes ---------------------------------------------------------
NODE_HEARTBEAT_MS = 500
"""How often a node shows the controller that it lives."""
NODE_HEARTBEAT_TIMEOUT_MS = 1_000
"""A heartbeat without an answer for so long is given up, and another candidate is asked."""
NODE_REQUEST_TIMEOUT_MS = 2_000
"""What a node asks of the controller is asked again, of whoever is it then, after so long."""
NODE_LEASE_MS = 3_000
"""Granted with each heartbeat, counted from when it was sent."""
NODE_GONE_AFTER_MS = NODE_LEASE_MS + 200
"""A node whose process is known to be gone may be fenced after so much silence."""
NODE_CUT_OFF_AFTER_MS = 2_000
"""So long after its lease ended a node sends its subscribers elsewhere."""
NODE_POSITIONS_MAX = 256
"""Ends of logs in one heartbeat; more come with the next."""
NODE_REFUSED_PAUSE_MS = 2_000
"""A node that the controller refuses asks again after so long."""
RAFT_BATCH_MESSAGES_MAX = 16_384
"""What a candidate accepts as one frame of another's messages."""
SHARD_HOLDERS_MAX = 16
"""Nodes that one shard's row names: its copies, and those that come and go."""
IDENTITY_BYTES_MAX = 32
"""Of a data directory, of a start of a process, of a cluster."""
CONTROLLER_PASS_MS = 250
"""The controller looks at everything at least so often."""
CONTROLLER_CONFIRMED_MS = 1_000
"""Leases are granted only by a controller that a majority confirmed within so long."""
CONTROLLER_FENCING_MARGIN_MS = 500
"""Between the end of the last lease of an old controller and the first fencing of a new one."""
CONTROLLER_REQUESTS_MAX = 1024
"""Requests waiting for the controller's decision. More: `OverloadedError`."""
CONTROLLER_BATCH_MAX = 64
"""Requests decided together, in one entry of the metadata log."""
CANDIDATE_CATCH_UP_MS = 10_000
"""A node that is to become a candidate has so long to catch up with the metadata log: whoever
asked still waits for the answer then."""
METADATA_PUSHED_ENTRIES_MAX = 1_024
"""Entries of the metadata log kept for nodes that follow; who is further behind gets a snapshot."""
METADATA_PUSHED_BYTES_MAX = 256 << 10
"""Entries in one message to a node that follows."""

# --- the cluster's metadata log -----------------------------------------------------------
RAFT_TICK_MS = 100
RAFT_APPENDS_IN_FLIGHT_MAX = 16
RAFT_MESSAGE_BYTES_MAX = 128 << 10
"""Entries, or a piece of a snapshot, in one message between candidates."""
METADATA_ENTRY_BYTES_MAX = 256 << 10
"""Records that were decided together, encoded."""
METADATA_WAITING_MAX = 1024
"""Appends and reads that wait for a majority. More: `OverloadedError`."""
METADATA_UNRESOLVED_MS = 3_000
"""So long a candidate that no longer leads waits to see what became of its last append."""
METADATA_LOG_ENTRIES_MAX = 2_000
METADATA_LOG_BYTES_MAX = 8 << 20
"""Beyond either a snapshot takes the place of the log."""
METADATA_LOG_ENTRIES_KEPT = 500
"""Entries below a snapshot that stay in memory, for who is a little behind."""
METADATA_SEGMENT_BYTES = 4 << 20
METADATA_RETRY_MS = 500
"""Pause before writing again to a disk that was full."""

# --- links between nodes ------------------------------------------------------------------
PEER_CONNECTIONS_MAX = 512
"""Accepted from other nodes, beside those of clients."""
PEER_OUTBOUND_BYTES_MAX = 64 << 20
"""What may wait to be sent on one link; pushes beyond it are dropped."""
PEER_IN_FLIGHT_MAX = 256
"""Requests on one link that wait for their answer. More: `OverloadedError`."""
PEER_REQUESTS_MAX = 4096
"""Requests of all other nodes together that this node is at."""
PEER_MESSAGE_BYTES_MAX = 64 << 20
"""What a node accepts as one message of another, put together from several frames."""
PEER_TEXT_BYTES_MAX = 512
"""A name or an address in the hello of a node."""
PEER_CANDIDATES_MAX = 16
"""Candidates in the hello of a node."""
PEER_PING_MS = 500
PEER_SILENT_PINGS_MAX = 4
"""Pings in a row without any sign of the far end before a link is aborted and dialled again."""
PEER_SILENCE_MS = 3_000
"""A link on which nothing came for so long is aborted by the end that accepted it."""
PEER_DIAL_TIMEOUT_MS = 1_000
PEER_HELLO_TIMEOUT_MS = 2_000
PEER_REDIAL_MS = 200
"""The longest pause before a link that was lost is dialled again."""
PEER_REFUSED_PAUSE_MS = 2_000
"""The pause after a node that does not want this one."""

# --- TLS ----------------------------------------------------------------------------------
TLS_HANDSHAKE_MS = 5_000
TLS_HANDSHAKES_MAX = 4_096
"""Connections of all ports of a node that have not got through their handshake; more are closed."""
TLS_LINGER_MS = 1_000
"""So long who failed is listened to, and not heard, so that it reads why."""
TLS_FAULTS_TOLD_MAX = 256
"""Addresses and faults that were told once and are not told again."""
TLS_LOOK_MS = 2_000
"""How often files are looked at; what was changed is read when it is the same twice."""
TLS_EXPIRY_TOLD_DAYS = 14
TLS_EXPIRY_TOLD_MS = 24 * 3_600_000
"""A certificate that ends so soon is warned of, so often."""

# --- replication --------------------------------------------------------------------------
REPLICATION_ENTRIES_RETAINED = 2_048
"""Entries of a shard kept in memory for replicas that are behind; others take a snapshot."""
REPLICATION_BACKLOG_MAX = 64
"""Messages for a shard whose role is being switched; more are sent again by their primary."""
REPLICATION_BACKLOG_BYTES_MAX = 1 << 20
"""And about as many bytes of them."""
REPLICATION_BATCH_BYTES = 512 << 10
"""Messages for one node that leave as one frame."""
REPLICATION_SNAPSHOT_BYTES_MAX = 256 << 20
"""States of shards that one node is sending; one that does not fit is dropped, and sent again."""
REPLICATION_BATCH_BYTES_MAX = 2 << 20
REPLICATION_BATCH_MESSAGES_MAX = 16_384
"""What a node accepts as one frame of another's messages, whatever that one collects."""
REPLICATION_ASKS_AT_ONCE = 8
"""Questions of this node's primaries that the controller is asked at a time."""
COMMIT_ANNOUNCED_MS = 5
"""After so long replicas are told of commits that no entries were sent after."""
SHARD_SNAPSHOTS_AT_ONCE = 2
"""Shards that are being sent whole to replicas."""
SHARD_INSTALL_RETRY_MS = 1_000
"""Pause before a snapshot that did not fit on the disk is tried again."""
