package fs

import (
	"cmp"
	"math"
	"slices"

	gofs "github.com/hanwen/go-fuse/v2/fs"
)

// The kernel keeps every file that it was once told of until it needs the
// memory, and does not count that of this process, which has a node for each.
// So where there are too many, it is asked to let those go that it learnt of
// first. It keeps what is in use: open files, working directories, and
// directories of which it knows more than themselves.

const (
	// defaultInodes is how many nodes there are before the first are let go. One
	// takes 0.7 KiB with all that hangs on it.
	defaultInodes = 100_000
	// sweptPart is the part of that by which the nodes may grow between two sweeps.
	sweptPart = 8
)

// sweep lets nodes go if there are too many.
func (k *kernel) sweep() {
	live, serial := k.m.numbers.count()
	if serial < k.sweepAt.Load() {
		return
	}
	if k.inodes < 0 {
		k.sweepAt.Store(math.MaxUint64)
		return
	}
	over := live - k.inodes
	if over <= 0 {
		k.sweepAt.Store(serial + uint64(-over) + 1)
		return
	}
	part := k.inodes/sweptPart + 1
	k.sweepAt.Store(serial + uint64(part))

	// The kernel does not say which it kept. Those behind the last that it was
	// asked about are next, so that it is asked about all in turn.
	idle := k.m.root.idleBelow(nil)
	slices.SortFunc(idle, func(a, b *node) int { return cmp.Compare(a.serial, b.serial) })
	first, _ := slices.BinarySearchFunc(idle, k.swept+1, func(n *node, serial uint64) int { return cmp.Compare(n.serial, serial) })
	idle = append(idle[first:], idle[:first]...)
	idle = idle[:min(len(idle), over+part)]
	for some := range slices.Chunk(idle, maxPruned) {
		k.swept = some[len(some)-1].serial
		k.letGo(some)
	}
}

// letGo asks the kernel to forget nodes, as far as it does not need them.
func (k *kernel) letGo(some []*node) {
	if k.m.ending.Load() {
		return
	}
	inodes := make([]*gofs.Inode, len(some))
	for i, n := range some {
		inodes[i] = n.EmbeddedInode()
	}
	if !k.old && k.m.root.NotifyPrune(inodes) == 0 {
		return
	}
	k.old = true
	for _, n := range some {
		// Who works in a directory would lose the way to it. What is mounted over
		// a file is detached by this; the kernel does not say that there is such
		// a mount, and those of other namespaces are not to be seen from here.
		if dir, name, ok := k.m.places.parent(n); ok && !n.IsDir() {
			_ = dir.NotifyEntry(name)
		}
	}
}

// idleBelow adds the nodes below d that nobody has open.
func (d *dirNode) idleBelow(idle []*node) []*node {
	for name := range d.Children() {
		switch n := d.member(name).(type) {
		case nil:
		case *dirNode:
			before := len(idle)
			if idle = n.idleBelow(idle); len(idle) == before {
				idle = append(idle, &n.node)
			}
		default:
			if n.base().anyHandle(false) == nil {
				idle = append(idle, n.base())
			}
		}
	}
	return idle
}
