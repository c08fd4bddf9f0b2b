package netstack

import (
	"container/list"
	"net/netip"
	"strings"
	"sync"
	"time"

	"banger/internal/egress"
)

// namePool is where the addresses come from that stand for names ("fake IP"). Nobody else has them: they are set aside for
// benchmarks.
var namePool = netip.MustParsePrefix("198.18.0.0/16")

const (
	maxBound = 4096 // names that have an address
	maxSeen  = 4096 // addresses whose name is known, for the log
	poolSize = 1<<16 - 2
)

func isVMName(name string) bool { return strings.HasSuffix(name, egress.VMSuffix) }
func vmOf(name string) string   { return strings.TrimSuffix(name, egress.VMSuffix) }

// names knows which name an address stands for or came from.
type names struct {
	mu    sync.Mutex
	bound table[string, *binding] // by name
	addrs map[netip.Addr]*binding
	next  uint32
	seen  table[netip.Addr, string]
}

// binding is a name with an address of ours.
type binding struct {
	name string
	fake netip.Addr

	turn    chan struct{} // holds one token: whose it is may look up
	real    []netip.Addr  // from the last look-up
	expires time.Time
}

// bind gives the address of a name. Addresses go round, so that one is not given to another name while a guest may still
// remember it.
func (n *names) bind(name string) *binding {
	n.mu.Lock()
	defer n.mu.Unlock()
	if b, ok := n.bound.get(name); ok {
		return b
	}
	if n.addrs == nil {
		n.addrs = map[netip.Addr]*binding{}
	}
	b := &binding{name: name, turn: make(chan struct{}, 1)}
	b.turn <- struct{}{}
	for {
		n.next = n.next%poolSize + 1
		base := namePool.Addr().As4()
		b.fake = netip.AddrFrom4([4]byte{base[0], base[1], byte(n.next >> 8), byte(n.next)})
		if n.addrs[b.fake] == nil {
			break
		}
	}
	n.addrs[b.fake] = b
	if old, ok := n.bound.put(name, b, maxBound); ok {
		delete(n.addrs, old.fake)
	}
	return b
}

// lookup gives the name that addr stands for (bound), or the one that led to it.
func (n *names) lookup(addr netip.Addr) (name string, bound bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if b := n.addrs[addr]; b != nil {
		n.bound.get(b.name)
		return b.name, true
	}
	name, _ = n.seen.get(addr)
	return name, false
}

// saw remembers that a name led to addr.
func (n *names) saw(addr netip.Addr, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen.put(addr, name, maxSeen)
}

// table is a map that forgets what was used least recently.
type table[K comparable, V any] struct {
	items map[K]*list.Element
	order list.List // of entry, the newest first
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func (t *table[K, V]) get(key K) (value V, ok bool) {
	e, ok := t.items[key]
	if !ok {
		return value, false
	}
	t.order.MoveToFront(e)
	return e.Value.(*entry[K, V]).value, true
}

// put adds or replaces a value, and gives what was forgotten to keep to limit.
func (t *table[K, V]) put(key K, value V, limit int) (old V, forgot bool) {
	if t.items == nil {
		t.items = map[K]*list.Element{}
	}
	if e, ok := t.items[key]; ok {
		e.Value.(*entry[K, V]).value = value
		t.order.MoveToFront(e)
		return old, false
	}
	t.items[key] = t.order.PushFront(&entry[K, V]{key, value})
	if len(t.items) <= limit {
		return old, false
	}
	last := t.order.Back()
	t.order.Remove(last)
	gone := last.Value.(*entry[K, V])
	delete(t.items, gone.key)
	return gone.value, true
}
