// Package bench measures the keifs command against plain S3 requests: the same
// work, on the same machine, against the same server, which a proxy puts as far
// away as a real one. README.md has the table; "make bench" makes it.
//
// The types to know are [Proxy] and [Client], the two sides of the comparison,
// and [Table], which collects their [Figures]. What is measured are the rows in
// the benchmark.
package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"
)

// Profile is how far away a store is.
type Profile struct {
	Lag  time.Duration // from the end of a request to the first byte of its answer, at least
	Rate float64       // bytes per second of one body, 0 for no limit
}

// Count is what went through a proxy since it was reset.
type Count struct {
	Requests   map[string]int64 // by operation
	Failed     int64            // answers of 400 and above, 404 and 412 not counted
	Up, Down   int64            // bytes of bodies
	Changing   int              // changing requests under way
	LastChange time.Time        // end of the last of them
}

// Proxy stands between S3 clients and a server on this machine, as far away
// as its profile says, and counts. A connection of a client is tied to one to
// the server; heads pass as they are, so signatures stay valid, and bodies
// mostly by splice(2), which costs little.
type Proxy struct {
	server string // host:port
	log    io.Writer

	mu      sync.Mutex
	profile Profile
	count   Count
}

// NewProxy makes a proxy for the server at host:port. It writes a line for each
// request to log, and an empty one where it begins to count.
func NewProxy(server string, log io.Writer) *Proxy {
	return &Proxy{server: server, log: log, count: Count{Requests: map[string]int64{}}}
}

// Reset puts a profile in force and counts from zero.
func (p *Proxy) Reset(profile Profile) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.log)
	p.profile = profile
	p.count = Count{Requests: map[string]int64{}, Changing: p.count.Changing}
}

// Count returns the counts. Its map is the caller's.
func (p *Proxy) Count() Count {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.count
	c.Requests = maps.Clone(p.count.Requests)
	return c
}

// Serve serves clients until the listener is closed.
func (p *Proxy) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go p.serve(conn)
	}
}

// end is one side of a connection.
type end struct {
	net.Conn
	r *bufio.Reader
}

func newEnd(conn net.Conn) *end { return &end{conn, bufio.NewReaderSize(conn, 64<<10)} }

func (p *Proxy) serve(conn net.Conn) {
	defer conn.Close()
	up, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer up.Close()
	client, server := newEnd(conn), newEnd(up)
	for p.exchange(client, server) == nil {
	}
}

var errLast = errors.New("last exchange of a connection")

// exchange passes one request and its answer.
func (p *Proxy) exchange(client, server *end) error {
	head, err := readHead(client.r)
	if err != nil {
		return err
	}
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return err
	}
	op, changes := operation(req)
	profile := p.begin(op, changes, req)
	up, down, status, err := relay(client, server, head, req, profile)
	p.finish(changes, up, down, status)
	if err == nil && req.Close {
		err = errLast
	}
	return err
}

func (p *Proxy) begin(op string, changes bool, req *http.Request) Profile {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.log, time.Now().Format("05.000"), op, req.URL.RequestURI())
	p.count.Requests[op]++
	if changes {
		p.count.Changing++
	}
	return p.profile
}

func (p *Proxy) finish(changes bool, up, down int64, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count.Up += up
	p.count.Down += down
	if status >= 400 && status != http.StatusNotFound && status != http.StatusPreconditionFailed {
		p.count.Failed++
	}
	if changes {
		p.count.Changing--
		p.count.LastChange = time.Now()
	}
}

func relay(client, server *end, head []byte, req *http.Request, profile Profile) (up, down int64, status int, err error) {
	if _, err := server.Write(head); err != nil {
		return 0, 0, 0, err
	}
	if req.Header.Get("Expect") != "" {
		if _, err := io.WriteString(client, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return 0, 0, 0, err
		}
	}
	up, err = passBody(server, client, req.ContentLength, profile.Rate)
	if err != nil {
		return up, 0, 0, err
	}
	due := time.Now().Add(profile.Lag)
	var answer *http.Response
	for answer == nil || answer.StatusCode == http.StatusContinue {
		if head, err = readHead(server.r); err != nil {
			return up, 0, 0, err
		}
		if answer, err = http.ReadResponse(bufio.NewReader(bytes.NewReader(head)), req); err != nil {
			return up, 0, 0, err
		}
	}
	time.Sleep(time.Until(due))
	if _, err := client.Write(head); err != nil {
		return up, 0, answer.StatusCode, err
	}
	if length := answer.ContentLength; req.Method != http.MethodHead {
		down, err = passBody(client, server, length, profile.Rate)
	}
	if err == nil && answer.Close {
		err = errLast
	}
	return up, down, answer.StatusCode, err
}

// readHead reads up to the empty line.
func readHead(r *bufio.Reader) ([]byte, error) {
	var head []byte
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		head = append(head, line...)
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return head, nil
		}
	}
}

// pacedStep is after how many bytes the pace is looked at.
const pacedStep = 256 << 10

// passBody passes a body of that length, or a chunked one where it is
// negative, at a rate.
func passBody(to, from *end, length int64, rate float64) (passed int64, err error) {
	start := time.Now()
	pace := func() {
		if rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(passed) / rate * float64(time.Second)))))
		}
	}
	if length < 0 {
		passed, err = passChunks(to, from)
		pace()
		return passed, err
	}
	for passed < length {
		step := length - passed
		if rate > 0 {
			step = min(step, pacedStep)
		}
		var n int64
		if held := int64(from.r.Buffered()); held > 0 {
			n, err = io.CopyN(to.Conn, from.r, min(held, step))
		} else {
			n, err = io.CopyN(to.Conn, from.Conn, step) // by splice
		}
		passed += n
		if err != nil {
			return passed, err
		}
		pace()
	}
	return passed, nil
}

func passChunks(to, from *end) (int64, error) {
	w := httputil.NewChunkedWriter(to)
	n, err := io.Copy(w, httputil.NewChunkedReader(from.r))
	if err != nil {
		return n, err
	}
	if err := w.Close(); err != nil {
		return n, err
	}
	trailer, err := readHead(from.r)
	if err != nil {
		return n, err
	}
	_, err = to.Write(trailer)
	return n, err
}

// operation names the S3 operation of a request that addresses the bucket by
// its path, and says whether it changes the bucket.
func operation(req *http.Request) (name string, changes bool) {
	_, key, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	query := req.URL.Query()
	copies := req.Header.Get("X-Amz-Copy-Source") != ""
	switch {
	case req.Method == http.MethodGet && query.Has("uploads"):
		return "ListUploads", false
	case req.Method == http.MethodGet && query.Has("uploadId"):
		return "ListParts", false
	case req.Method == http.MethodGet && query.Has("versions"):
		return "ListVersions", false
	case req.Method == http.MethodGet && key == "" && query.Has("list-type"):
		return "LIST", false
	case req.Method == http.MethodGet && key != "", req.Method == http.MethodHead:
		return req.Method, false
	case req.Method == http.MethodGet:
		return "GET bucket", false
	case req.Method == http.MethodPut && query.Has("uploadId") && copies:
		return "PartCopy", true
	case req.Method == http.MethodPut && query.Has("uploadId"):
		return "Part", true
	case req.Method == http.MethodPut && copies:
		return "COPY", true
	case req.Method == http.MethodPost && query.Has("delete"):
		return "BatchDelete", true
	case req.Method == http.MethodPost && query.Has("uploads"):
		return "CreateUpload", true
	case req.Method == http.MethodPost && query.Has("uploadId"):
		return "CompleteUpload", true
	case req.Method == http.MethodDelete && query.Has("uploadId"):
		return "AbortUpload", true
	}
	return req.Method, true
}

// String is the counts in one line, most frequent first.
func (c Count) String() string {
	var parts []string
	for _, op := range sortedByCount(c.Requests) {
		parts = append(parts, fmt.Sprintf("%d %s", c.Requests[op], op))
	}
	if c.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", c.Failed))
	}
	return strings.Join(parts, ", ")
}
