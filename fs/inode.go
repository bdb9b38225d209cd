package fs

import (
	"sync"

	"github.com/keifs/keifs/store"
)

// numbers gives inode numbers. A number is a hash of branch and path, so that
// a file has the same one after a remount and on another host; but no two live
// nodes share one: a file that was renamed keeps its number, and what is made
// under its old name gets the next in a sequence that the hash begins.
type numbers struct {
	mu    sync.Mutex
	taken map[uint64]uint64 // number to the serial of the node that has it
	next  uint64            // serials, which are never used twice
}

// rootNumber is the number of the mount's root.
const rootNumber = 1

func newNumbers() *numbers {
	return &numbers{taken: map[uint64]uint64{}}
}

// claim takes a number for a node, and a serial that no other node has.
func (n *numbers) claim(hash uint64) (number, serial uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	number = n.freeLocked(hash)
	n.taken[number] = n.next
	return number, n.next
}

// count is how many nodes there are, and the serial of the last one.
func (n *numbers) count() (live int, serial uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.taken), n.next
}

// peek says which number a node would get now.
func (n *numbers) peek(hash uint64) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.freeLocked(hash)
}

func (n *numbers) freeLocked(hash uint64) uint64 {
	for {
		if _, taken := n.taken[hash]; !taken && hash > rootNumber {
			return hash
		}
		hash = store.Number(hash, "")
	}
}

// release gives a number back. It may come more than once for a node.
func (n *numbers) release(number, serial uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.taken[number] == serial {
		delete(n.taken, number)
	}
}
