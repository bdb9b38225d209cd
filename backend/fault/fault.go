// Package fault makes a backend fail on purpose and writes down what was asked
// of it, for tests: of retries, of crashes half-way, of the number of requests
// that an operation costs.
//
// The types to know are [Rule], which says what fails how, and [Injector],
// which applies rules to the backends it wraps and records their requests.
// [Sweep] fails the first, the second, the third … request of a scenario.
package fault

import (
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
)

// Rule says which requests are disturbed, and how. A zero selector selects
// everything; a zero effect does nothing, so that a rule of selectors only is
// a counter (see [Injector.Fired]).
type Rule struct {
	// Op selects by the name of the operation as in [backend.Op] ("put",
	// "get", …), or "read" or "write" for all of that kind.
	Op string
	// Key selects by key; '*' stands for any run of bytes, '/' included.
	Key string
	// From is the first matching request, counted from 1, that is disturbed.
	// 0 is 1.
	From int
	// Times is how many are disturbed; 0 is once, Always all from then on.
	Times int

	// Delay passes before anything else happens, or until the context ends.
	Delay time.Duration
	// Do runs in the place of the fault; its error is the fault where Err is nil.
	Do func(ctx context.Context, op *backend.Op) error
	// Err is what the request fails with.
	Err error
	// After lets the request take effect first, and then runs Do and fails:
	// the answer that got lost. A request that failed by itself keeps its error.
	After bool
	// Cut breaks the body of a get after CutAfter bytes: Read fails with Err,
	// or with ErrTransient where that is nil.
	Cut      bool
	CutAfter int64
}

// Always is the Rule.Times of a fault that stays.
const Always = -1

func (r *Rule) matches(op *backend.Op) bool {
	switch r.Op {
	case "", op.Name:
	case "read":
		if op.Write() {
			return false
		}
	case "write":
		if !op.Write() {
			return false
		}
	default:
		return false
	}
	return r.Key == "" || match(r.Key, op.Key)
}

// match says whether s is of the pattern, in which '*' stands for any run of bytes.
func match(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	last := len(parts) - 1
	if last == 0 {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1:last] {
		_, rest, found := strings.Cut(s, part)
		if !found {
			return false
		}
		s = rest
	}
	return strings.HasSuffix(s, parts[last])
}

// Injector applies rules to the requests of the backends it wraps, and records
// them. It is safe for concurrent use.
type Injector struct {
	mu       sync.Mutex
	rules    []*state
	quiet    func(op *backend.Op) bool
	requests []string
}

type state struct {
	Rule
	seen  int // requests that matched
	fired int // requests that were disturbed
}

// New returns an Injector with these rules. Of several that match one request
// all count it, and the first whose turn it is disturbs it.
func New(rules ...Rule) *Injector {
	in := new(Injector)
	in.Add(rules...)
	return in
}

// Wrap returns b with its requests passing through the injector. Several
// backends may be wrapped; their requests are counted together.
func (in *Injector) Wrap(b backend.Backend) backend.Backend {
	return backend.Intercept(b, in.intercept)
}

// Add adds rules, which count from now.
func (in *Injector) Add(rules ...Rule) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, r := range rules {
		in.rules = append(in.rules, &state{Rule: r})
	}
}

// Quiet leaves requests out of the record: those that come by the clock.
func (in *Injector) Quiet(quiet func(op *backend.Op) bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.quiet = quiet
}

// Clear removes all rules. The record stays.
func (in *Injector) Clear() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.rules = nil
}

// Fired returns how many requests the present rules have disturbed.
func (in *Injector) Fired() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := 0
	for _, r := range in.rules {
		n += r.fired
	}
	return n
}

// take records the request and returns the rule that disturbs it, if any.
func (in *Injector) take(op *backend.Op) (rule Rule, found bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.quiet == nil || !in.quiet(op) {
		in.requests = append(in.requests, line(op))
	}
	for _, r := range in.rules {
		if !r.matches(op) {
			continue
		}
		r.seen++
		n := r.seen - max(r.From, 1) // how many were disturbed before
		due := n >= 0 && (r.Times == Always || n < max(r.Times, 1))
		if due && !found {
			r.fired++
			rule, found = r.Rule, true
		}
	}
	return rule, found
}

func (in *Injector) intercept(ctx context.Context, op *backend.Op, next func(context.Context) error) error {
	rule, found := in.take(op)
	if !found {
		return next(ctx)
	}
	if rule.Delay > 0 {
		timer := time.NewTimer(rule.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if rule.Cut {
		cause := rule.Err
		if cause == nil {
			cause = backend.ErrTransient
		}
		op.Body = func(body io.Reader) io.Reader {
			return &cutReader{body: body, left: rule.CutAfter, err: backend.Fail(op.Name, op.Key, cause, errCut)}
		}
		return next(ctx)
	}
	if rule.After {
		if err := next(ctx); err != nil {
			return err
		}
		return rule.fail(ctx, op)
	}
	if err := rule.fail(ctx, op); err != nil {
		return err
	}
	return next(ctx)
}

// fail runs the fault and returns its error; nil when the rule has none.
func (r *Rule) fail(ctx context.Context, op *backend.Op) error {
	if r.Do != nil {
		if err := r.Do(ctx, op); err != nil && r.Err == nil {
			return err
		}
	}
	return backend.Fail(op.Name, op.Key, r.Err, errInjected)
}
