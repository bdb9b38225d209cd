package fault

import (
	"iter"
	"slices"
	"strings"

	"github.com/keifs/keifs/backend"
)

// Requests returns one line for each request so far, in the order in which
// they began: "PUT main/a if-absent", "GET main/a", "LIST main/". It is what a
// golden list is compared with.
func (in *Injector) Requests() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.requests)
}

// Count returns how many requests there were of that operation, by its name as
// in [backend.Op]; of all with an empty name.
func (in *Injector) Count(op string) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := 0
	for _, r := range in.requests {
		name, _, _ := strings.Cut(r, " ")
		if op == "" || name == strings.ToUpper(op) {
			n++
		}
	}
	return n
}

// ResetRequests empties the record. The rules and their counts stay.
func (in *Injector) ResetRequests() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.requests = nil
}

func line(op *backend.Op) string {
	s := strings.ToUpper(op.Name)
	if op.Key != "" {
		s += " " + op.Key
	}
	if op.Cond.IfAbsent {
		s += " if-absent"
	}
	if op.Cond.IfMatch != "" {
		s += " if-match"
	}
	return s
}

// Sweep yields 1, 2, 3, … each with a new injector in which rule, if it is
// the only thing that goes wrong, strikes the n-th request that it matches.
// It ends after the first round in which it struck nothing: the scenario had
// fewer requests than n.
//
//	for n, in := range fault.Sweep(fault.Rule{Op: "write", Err: backend.ErrIO}) {
//		b := in.Wrap(mem.New("", mem.Options{}))
//		… run the scenario, which may fail; check what must hold in any case …
//	}
//
// A body that leaves the loop without running its scenario ends the sweep.
func Sweep(rule Rule) iter.Seq2[int, *Injector] {
	return func(yield func(int, *Injector) bool) {
		for n := 1; ; n++ {
			rule.From = n
			in := New(rule)
			if !yield(n, in) || in.Fired() == 0 {
				return
			}
		}
	}
}
