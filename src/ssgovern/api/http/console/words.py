"""The console's words, in English and in Chinese.

Knows no page. Invariant: every word is there in both languages, with the same gaps to fill
(tested). Words of the glossary are used as they are.
"""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]

LANGUAGES: tuple[Language, ...] = ("en", "zh")


def language_of(accept_language: str, chosen: str) -> Language:
    """Return the language that was chosen, else the one the browser likes best."""
    if chosen in LANGUAGES:
        return "zh" if chosen == "zh" else "en"
    best: tuple[float, Language] = (0.0, "en")
    for part in accept_language[:200].split(","):
        name, _, rest = part.strip().partition(";")
        weight = 1.0
        if rest.strip().startswith("q="):
            try:
                weight = float(rest.strip()[2:])
            except ValueError:
                continue
        primary = name.lower().partition("-")[0]
        if weight > best[0]:
            if primary == "zh":
                best = (weight, "zh")
            elif primary == "en":
                best = (weight, "en")
    return best[1]


def say(language: Language, key: str, **gaps: object) -> str:
    """Return a text, its gaps filled."""
    text = WORDS[key][LANGUAGES.index(language)]
    return text.format(**gaps) if gaps else text


WORDS: dict[str, tuple[str, str]] = {
    # --- frame
    "overview": ("Overview", "总览"),
    "services": ("Services", "服务"),
    "service": ("Service", "服务"),
    "cluster": ("Cluster", "集群"),
    "sessions": ("Sessions", "会话"),
    "events": ("Events", "事件"),
    "audit": ("Audit", "审计"),
    "access": ("Access", "访问控制"),
    "api": ("API", "API"),
    "skip": ("Skip to the content", "跳到内容"),
    "menu": ("Pages", "页面"),
    "language": ("中文", "English"),
    "language_label": ("用中文显示", "Show in English"),
    "theme": ("Light or dark", "浅色或深色"),
    "log_out": ("Log out", "退出"),
    "log_in": ("Log in", "登录"),
    "user": ("User", "用户"),
    "password": ("Password", "密码"),
    "log_in_title": ("Log in to ss-govern", "登录 ss-govern"),
    "log_in_help": (
        "Users are made with `ss-govern access`.",
        "用户由 `ss-govern access` 创建。",
    ),
    "open_access": (
        "No log-in: this node listens on this machine only",
        "无需登录：本节点只监听本机",
    ),
    "live": ("Live", "实时"),
    "connecting": ("Connecting", "正在连接"),
    "lost": ("Connection lost", "连接已断开"),
    "lost_text": (
        "What you see is old, from {time}. Trying to reconnect…",
        "您看到的是旧数据（{time}）。正在重连……",
    ),
    "try_now": ("Try now", "立即重试"),
    "no_script": (
        "This page is not live: scripts are turned off.",
        "脚本已关闭，本页不会实时更新。",
    ),
    "not_found": ("Nothing is here", "这里什么也没有"),
    "not_found_text": (
        "There is no page at this address.",
        "该地址没有页面。",
    ),
    "back": ("Back to the overview", "回到总览"),
    "failed": ("This could not be shown", "无法显示"),
    "cancel": ("Cancel", "取消"),
    "done": ("Done", "完成"),
    "refused": ("Refused", "被拒绝"),
    "all": ("all", "全部"),
    "none": ("none", "无"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "unknown": ("unknown", "未知"),
    "never": ("never", "从未"),
    "filter": ("Filter", "筛选"),
    "previous": ("Previous", "上一页"),
    "next": ("Next", "下一页"),
    "range": ("{first}–{last} of {total}", "第 {first}–{last} 项，共 {total} 项"),
    "ago": ("{time} ago", "{time}前"),
    # --- health
    "health_good": ("All is well", "一切正常"),
    "health_attention": ("Needs attention", "需要关注"),
    "health_bad": ("Something is broken", "出现故障"),
    "good_alone": (
        "One node serves everything. A second node would keep a copy.",
        "一个节点承担全部服务。再加一个节点即可保留副本。",
    ),
    "good_cluster": (
        "{nodes} nodes serve all shards, each of them kept {copies} times.",
        "{nodes} 个节点服务全部分片，每个分片有 {copies} 份。",
    ),
    "why_unavailable": (
        "{n} of {of} shards have no primary: their services cannot be changed",
        "{of} 个分片中有 {n} 个没有主副本：其中的服务无法更改",
    ),
    "why_below": (
        "{n} shards have fewer copies in sync than wanted",
        "{n} 个分片的同步副本少于要求",
    ),
    "why_dead": ("Node {node} is not alive", "节点 {node} 已失联"),
    "why_silent": ("Node {node} does not answer: {why}", "节点 {node} 无响应：{why}"),
    "why_controller": (
        "No controller is heard: nothing that fails is repaired",
        "没有控制器：故障不会被修复",
    ),
    "why_refused": ("Node {node} takes no writes: {why}", "节点 {node} 拒绝写入：{why}"),
    "why_protected": (
        "{n} sessions would have expired; protection holds them",
        "{n} 个会话本应过期，现被保护机制保留",
    ),
    "why_moves": ("{n} shards are being moved", "{n} 个分片正在迁移"),
    "why_no_instances": (
        "{n} services have no instance that takes traffic",
        "{n} 个服务没有可用实例",
    ),
    # --- overview
    "nodes": ("Nodes", "节点"),
    "nodes_alive": ("Nodes alive", "存活节点"),
    "instances": ("Instances", "实例"),
    "available": ("take traffic", "可用"),
    "available_of": ("{n} of {of} take traffic", "{of} 个中 {n} 个可用"),
    "connections": ("Connections", "连接"),
    "subscriptions": ("Subscriptions", "订阅"),
    "n_subscriptions": ("{n} subscriptions", "{n} 个订阅"),
    "changes_rate": ("Changes per second", "每秒变更"),
    "changes_help": (
        "Entries committed by all nodes: registrations, updates, removals.",
        "所有节点提交的条目：注册、更新、移除。",
    ),
    "push_delay": ("Push delay", "推送延迟"),
    "push_help": (
        "From the commit of a change to the sockets of this node's subscribers.",
        "从变更提交到写入本节点订阅者连接的时间。",
    ),
    "chart_waits": ("Drawn from now on, as changes come.", "从现在起随变更绘制。"),
    "chart_now": ("now", "现在"),
    "minutes_ago": ("{n} min ago", "{n} 分钟前"),
    "attention": ("Services that need attention", "需要关注的服务"),
    "attention_none": (
        "Every service has all its instances in traffic.",
        "所有服务的全部实例均可用。",
    ),
    "attention_more": ("All {n} of them", "查看全部 {n} 个"),
    "no_services": ("No services yet", "还没有服务"),
    "no_services_text": (
        "Register one from a shell on this machine; it appears here by itself:",
        "在本机终端注册一个，它会自动出现在这里：",
    ),
    "or_http": ("or from any language, over HTTP:", "或者用任何语言通过 HTTP："),
    "namespaces": ("Namespaces", "命名空间"),
    "namespace": ("Namespace", "命名空间"),
    "group": ("Group", "分组"),
    "recent_events": ("Recent changes", "最近变更"),
    "see_all": ("See all", "查看全部"),
    # --- nodes
    "node": ("Node", "节点"),
    "address": ("Address", "地址"),
    "zone": ("Zone", "可用区"),
    "state": ("State", "状态"),
    "role": ("Role", "角色"),
    "role_controller": ("controller", "控制器"),
    "role_candidate": ("candidate", "候选"),
    "role_alone": ("alone", "单机"),
    "role_member": ("member", "成员"),
    "here": ("this node", "本节点"),
    "alive": ("alive", "存活"),
    "silent": ("does not answer", "无响应"),
    "dead": ("not alive", "失联"),
    "leaving": ("leaving", "正在离开"),
    "node_lost": ("lost", "丢失"),
    "primaries": ("Primaries", "主副本"),
    "copies_kept": ("Shards kept", "持有分片"),
    "not_in_sync": ("behind", "落后"),
    "memory": ("Memory", "内存"),
    "uptime": ("Up for", "运行时间"),
    "version": ("Version", "版本"),
    "wal": ("Log (WAL)", "日志（WAL）"),
    "wal_text": ("{size} in {n} files", "{size}，{n} 个文件"),
    "last_write": ("Last write", "最近写入"),
    "loop_stall": ("Longest stall", "最长停顿"),
    "pushes": ("Pushes", "推送"),
    "expirations": ("Expired sessions", "过期会话"),
    "durability": ("Durability", "持久性"),
    "writes": ("Writes", "写入"),
    "writes_taken": ("taken", "接受"),
    # --- services
    "search": ("Search services", "搜索服务"),
    "search_hint": ("part of a name — press / to get here", "名称的一部分，按 / 聚焦"),
    "all_namespaces": ("All namespaces", "全部命名空间"),
    "only_attention": ("Only those that need attention", "仅需要关注的"),
    "sort": ("Sort", "排序"),
    "by_name": ("Name", "名称"),
    "by_instances": ("Instances", "实例数"),
    "by_missing": ("Out of traffic", "不可用数"),
    "name": ("Name", "名称"),
    "traffic": ("In traffic", "可用情况"),
    "revision": ("Revision", "修订"),
    "no_match": ("No service matches", "没有匹配的服务"),
    "no_match_text": (
        "Search looks for a part of the name, in the namespace chosen.",
        "按名称的一部分在所选命名空间中搜索。",
    ),
    # --- service
    "shard": ("Shard", "分片"),
    "slot": ("Slot", "槽位"),
    "primary": ("Primary", "主副本"),
    "replicas": ("Replicas", "副本"),
    "replica": ("replica", "副本"),
    "instance": ("Instance", "实例"),
    "weight": ("Weight", "权重"),
    "weight_of": ("Weight of {id}", "{id} 的权重"),
    "metadata": ("Metadata", "元数据"),
    "since": ("Registered", "注册时间"),
    "actions": ("Actions", "操作"),
    "enable": ("Enable", "启用"),
    "disable": ("Disable", "停用"),
    "drain": ("Drain", "排空"),
    "deregister": ("Deregister", "注销"),
    "in_traffic": ("in traffic", "可用"),
    "out_of_service": ("out of service", "已停用"),
    "unhealthy": ("unhealthy", "不健康"),
    "weight_zero": ("weight 0", "权重为 0"),
    "status_starting": ("starting", "启动中"),
    "status_stopping": ("stopping", "停止中"),
    "status_down": ("down", "已停止"),
    "persistent": ("persistent", "持久"),
    "ephemeral": ("ephemeral", "临时"),
    "find_instance": ("Filter instances: id, zone, metadata…", "筛选实例：id、可用区、元数据……"),
    "no_instances": ("No instances", "没有实例"),
    "no_instances_text": (
        "Nobody has registered for this service, or all of them left.",
        "没有实例注册该服务，或者均已离开。",
    ),
    "subscribers": ("Subscribers", "订阅者"),
    "subscribers_none": (
        "Nobody follows this service.",
        "没有订阅者关注该服务。",
    ),
    "subscribers_text": (
        "Who follows this service, and up to which revision they applied it.",
        "谁在关注该服务，以及他们应用到了哪个修订。",
    ),
    "has_it": ("up to date", "最新"),
    "is_behind": ("behind for {time}", "落后 {time}"),
    "does_not_say": ("does not say", "未报告"),
    "client": ("Client", "客户端"),
    "applied": ("Applied", "已应用"),
    "timeline": ("Recent changes", "最近变更"),
    "timeline_none": ("Nothing changed recently.", "最近没有变更。"),
    "disable_ask": (
        (
            "Take {id} out of service? Subscribers are told at once and send it nothing more. "
            "This stays, also when it registers again, until somebody enables it."
        ),
        "停用 {id}？订阅者会立即得知并不再向它发送流量。即使它重新注册也保持停用，直到有人启用。",
    ),
    "enable_ask": (
        "Let {id} take traffic again?",
        "重新启用 {id}？",
    ),
    "drain_ask": (
        (
            "Drain {id}? It is taken out of service; when every live subscriber knows, it is "
            "deregistered."
        ),
        "排空 {id}？先停用，待所有在线订阅者得知后再注销。",
    ),
    "deregister_ask": (
        "Deregister {id}? A client that is alive may register it again.",
        "注销 {id}？存活的客户端可能会再次注册它。",
    ),
    "did_weight": ("{id} has weight {weight}", "{id} 的权重为 {weight}"),
    "did_enable": ("{id} takes traffic again", "{id} 已启用"),
    "did_disable": ("{id} is out of service", "{id} 已停用"),
    "did_drain": ("{id} is drained", "{id} 已排空"),
    "did_drain_not_all": (
        "{id} is out of service and still registered: {n} subscribers have not said that they know",
        "{id} 已停用但仍注册：{n} 个订阅者尚未确认",
    ),
    "did_deregister": ("{id} is deregistered", "{id} 已注销"),
    "did_nothing": ("{id} was not there any more", "{id} 已经不存在"),
    # --- cluster
    "controller": ("Controller", "控制器"),
    "candidates": ("Candidates", "候选节点"),
    "term": ("Term", "任期"),
    "map_version": ("Map version", "映射版本"),
    "copies": ("Copies", "副本数"),
    "min_in_sync": ("Least in sync", "最少同步数"),
    "moves": ("Moves", "迁移"),
    "shards": ("Shards", "分片"),
    "shards_all": ("all {n} served", "{n} 个全部可用"),
    "shards_some": ("{n} of {of} without a primary", "{of} 个中 {n} 个没有主副本"),
    "placement": ("Who keeps which shard", "分片分布"),
    "placement_text": (
        (
            "Services are spread over {n} shards. Each row is a node, each square a shard; the "
            "primary takes the writes, replicas keep copies. Click one for details."
        ),
        (
            "服务分散在 {n} 个分片上。每行一个节点，每格一个分片；"
            "主副本接受写入，其他副本保留拷贝。点击查看详情。"
        ),
    ),
    "lane_primary": ("primary", "主副本"),
    "lane_in_sync": ("replica in sync", "同步副本"),
    "lane_behind": ("replica behind", "落后副本"),
    "lane_incoming": ("being copied here", "正在迁入"),
    "lane_none": ("not here", "不在此"),
    "lane_nobody": ("no primary", "没有主副本"),
    "lane_text": (
        "{node}: {primaries} primaries, {replicas} replicas",
        "{node}：{primaries} 个主副本，{replicas} 个副本",
    ),
    "epoch": ("Epoch", "纪元"),
    "holders": ("Kept by", "持有者"),
    "in_sync": ("In sync", "同步中"),
    "moving": ("Moving", "迁移中"),
    "moving_text": ("to {incoming}, from {outgoing}", "迁往 {incoming}，自 {outgoing}"),
    "transfer": ("Make primary", "设为主副本"),
    "transfer_ask": (
        "Make {node} the primary of shard {shard}? Writes to it pause for a moment.",
        "将 {node} 设为分片 {shard} 的主副本？写入会短暂暂停。",
    ),
    "leave": ("Leave", "移出"),
    "leave_ask": (
        "Move everything away from {node} and remove it from the cluster for good?",
        "将 {node} 上的数据全部迁走，并将其永久移出集群？",
    ),
    "stay": ("Stay", "保留"),
    "stay_ask": ("Take back that {node} shall leave?", "撤销移出 {node}？"),
    "hand_over": ("Make controller", "设为控制器"),
    "hand_over_ask": (
        "Hand the controller's duty to {node}?",
        "将控制器职责移交给 {node}？",
    ),
    "alone_text": (
        (
            "This node stands alone and keeps all shards. Start others with a cluster "
            "configuration, and they share them."
        ),
        "本节点单独运行并持有全部分片。以集群配置启动更多节点即可分担。",
    ),
    "no_shard": ("Choose a square to see who keeps that shard.", "点击方格查看分片由谁持有。"),
    "nobody": ("nobody", "无"),
    # --- sessions
    "sessions_text": (
        (
            "A session is a client's identity across reconnects. It owns what the client "
            "registered and ends when nothing is heard from it."
        ),
        "会话是客户端跨重连的身份，拥有其注册的实例；长时间没有消息即结束。",
    ),
    "sessions_none": ("No sessions", "没有会话"),
    "sessions_none_text": (
        "Clients open one when they connect.",
        "客户端连接时会打开会话。",
    ),
    "session": ("Session", "会话"),
    "connected": ("Connected", "已连接"),
    "last_heard": ("Last heard", "最近消息"),
    "owns": ("Owns", "拥有"),
    "kind": ("Kind", "类型"),
    "kind_session": ("session", "会话"),
    "kind_lease": ("HTTP lease", "HTTP 租约"),
    "protected": ("protected", "受保护"),
    "closing": ("connection closed", "连接已关闭"),
    "find_session": ("Filter: client or session id", "筛选：客户端或会话 id"),
    # --- events
    "events_text": (
        "What changed, newest first, as nodes remember it since they started.",
        "各节点启动以来记录的变更，最新在前。",
    ),
    "events_none": ("Nothing has happened yet", "还没有事件"),
    "events_none_text": (
        "Registrations, changes and expiries appear here as they happen.",
        "注册、变更与过期会实时出现在这里。",
    ),
    "what": ("What", "内容"),
    "when": ("When", "时间"),
    "who": ("Who", "谁"),
    "find_event": ("Filter: service", "筛选：服务"),
    "audit_text": (
        "Who changed what, and who was refused.",
        "谁更改了什么，谁被拒绝。",
    ),
    "audit_none": ("No operator has changed anything yet", "还没有操作记录"),
    "outcome": ("Outcome", "结果"),
    "from_where": ("From", "来源"),
    "before_after": ("Before → after", "之前 → 之后"),
    "event_registered": ("{id} registered at {address}", "{id} 注册于 {address}"),
    "event_replaced": ("{id} registered again at {address}", "{id} 重新注册于 {address}"),
    "event_deregistered": ("{id} was deregistered", "{id} 已注销"),
    "event_updated": ("{id} changed", "{id} 已变更"),
    "event_expired": (
        "{id} expired: its session fell silent",
        "{id} 已过期",
    ),
    "event_left": ("{id} left with its session", "{id} 随会话离开"),
    "event_unhealthy": ("{id} became unhealthy", "{id} 变为不健康"),
    "event_out_of_service": ("{id} was taken out of service", "{id} 已停用"),
    "event_in_service": ("{id} is in service again", "{id} 已重新启用"),
    "event_cluster": ("{reason}", "{reason}"),
    "event_missed": (
        "Something happened that no node remembers",
        "发生了一些节点已不记得的事件",
    ),
    "sessions_more": ("the first {n}; filter to see others", "前 {n} 个；请筛选查看其他"),
    "sessions_shown": ("{n} sessions", "{n} 个会话"),
    "n_instances": ("{n} instances", "{n} 个实例"),
    "lease_of": ("every {time}", "每 {time} 续约"),
    # --- access
    "users": ("Users", "用户"),
    "tokens": ("Tokens", "令牌"),
    "roles": ("Roles", "角色"),
    "grants": ("Grants", "授权"),
    "owner": ("Owner", "所有者"),
    "expires": ("Expires", "过期"),
    "disabled": ("disabled", "已禁用"),
    "expired": ("expired", "已过期"),
    "revoked": ("revoked", "已吊销"),
    "active": ("active", "有效"),
    "built_in": ("built in", "内置"),
    "revoke": ("Revoke", "吊销"),
    "revoke_ask": (
        "Revoke token {id}? Whoever uses it is refused within a second.",
        "吊销令牌 {id}？使用者将在一秒内被拒绝。",
    ),
    "access_off": ("Access control is off", "访问控制已关闭"),
    "access_off_text": (
        (
            "This node listens on this machine only, so whoever is on it may do everything. "
            "Set it up with:"
        ),
        "本节点只监听本机，本机上的任何人都可以执行任何操作。设置访问控制：",
    ),
    "access_text": (
        "Who may do what: users and tokens have roles, roles grant actions on services.",
        "谁可以做什么：用户与令牌拥有角色，角色授予对服务的操作权限。",
    ),
}
