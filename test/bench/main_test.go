package bench

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/keifs/keifs/test/versitygw"
)

// proxyEnv makes this binary the proxy, for the server that it names: what
// the proxy costs is not to count for the plain client.
const proxyEnv = "KEIFS_BENCH_PROXY"

// logEnv names the file that the proxy writes its log to.
const logEnv = "KEIFS_BENCH_LOG"

var (
	scale = flag.Float64("scale", 1, "size of the benchmarks' work, for trying them out")
	only  = flag.String("rows", "", "names of the rows to measure, separated by commas; default all")
	log   = flag.String("log", "", "file to write each request to that goes through the proxy")
	table Table
)

func TestMain(m *testing.M) {
	if server := os.Getenv(proxyEnv); server != "" {
		if err := proxyMain(server); err != nil {
			fmt.Fprintln(os.Stderr, "proxy:", err)
			os.Exit(1)
		}
		return
	}
	status := m.Run()
	if !table.Empty() {
		fmt.Printf("\n%s\n", &table)
	}
	os.Exit(status)
}

// proxyMain is a proxy with a control address, until standard input ends.
func proxyMain(server string) error {
	log := io.Discard
	if name := os.Getenv(logEnv); name != "" {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		log = f
	}
	p := NewProxy(server, log)
	control := http.NewServeMux()
	control.HandleFunc("POST /reset", func(_ http.ResponseWriter, r *http.Request) {
		var profile Profile
		if json.NewDecoder(r.Body).Decode(&profile) == nil {
			p.Reset(profile)
		}
	})
	control.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(p.Count())
	})
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(back, control)
	go p.Serve(front)
	fmt.Println(front.Addr(), back.Addr())
	_, _ = os.Stdin.Read(make([]byte, 1)) // which ends with the benchmarks
	return nil
}

// site is a server far away, a bucket with data, and the command.
type site struct {
	b        testing.TB
	srv      *versitygw.Server
	command  *Command
	dir      string // of everything on the local disk
	endpoint string // of the proxy
	control  string
	made     map[string]bool // data that is in the bucket
	seq      int
}

const bucket = "bench"

func openSite(b *testing.B) *site {
	b.Helper()
	dir := b.TempDir()
	s := &site{b: b, srv: versitygw.Shared(b), dir: dir, made: map[string]bool{}}
	name := bucket
	if _, err := s.srv.Client().CreateBucket(b.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil && !strings.Contains(err.Error(), "AlreadyOwned") {
		b.Fatal(err)
	}
	bin := filepath.Join(dir, "keifs")
	build := exec.Command("go", "build", "-o", bin, "github.com/keifs/keifs/cmd/keifs")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build keifs: %v\n%s", err, out)
	}
	s.startProxy()
	s.command = &Command{Path: bin, Env: []string{
		"HOME=" + dir, "XDG_CONFIG_HOME=" + filepath.Join(dir, "config"), "XDG_CACHE_HOME=" + filepath.Join(dir, "cache"),
		"XDG_DATA_HOME=" + filepath.Join(dir, "data"), "XDG_STATE_HOME=" + filepath.Join(dir, "state"),
		"XDG_RUNTIME_DIR=" + filepath.Join(dir, "run"), "KEIFS_ENDPOINT=" + s.endpoint,
		"AWS_ACCESS_KEY_ID=" + s.srv.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.srv.SecretKey,
		"AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true",
	}}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		b.Fatal(err)
	}
	// The first mount that writes finds out what the bucket can do. It is
	// remembered, and no part of any work.
	first := b.TempDir()
	err := s.mounted(first, nil, func(*Daemon) error { return os.Mkdir(filepath.Join(first, "main"), 0o755) })
	if err != nil {
		b.Fatal(err)
	}
	return s
}

func (s *site) startProxy() {
	s.b.Helper()
	self, err := os.Executable()
	if err != nil {
		s.b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), proxyEnv+"="+strings.TrimPrefix(s.srv.Endpoint, "http://"), logEnv+"="+*log)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		s.b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		s.b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.b.Fatal(err)
	}
	s.b.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	if _, err := fmt.Fscan(stdout, &s.endpoint, &s.control); err != nil {
		s.b.Fatal(err)
	}
	s.endpoint, s.control = "http://"+s.endpoint, "http://"+s.control
}

func (s *site) reset(profile Profile) error {
	body, err := json.Marshal(profile)
	if err != nil {
		return err
	}
	resp, err := http.Post(s.control+"/reset", "application/json", strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (s *site) count() (c Count, err error) {
	resp, err := http.Get(s.control + "/count")
	if err != nil {
		return c, err
	}
	defer resp.Body.Close()
	return c, json.NewDecoder(resp.Body).Decode(&c)
}

// far is a client behind the proxy, near one past it.
func (s *site) far() *Client { return NewClient(s.endpoint, bucket, s.srv.AccessKey, s.srv.SecretKey) }
func (s *site) near() *Client {
	return NewClient(s.srv.Endpoint, bucket, s.srv.AccessKey, s.srv.SecretKey)
}

// once makes data in the bucket that several rows read.
func (s *site) once(name string, fn func(*Client) error) error {
	if s.made[name] {
		return nil
	}
	if err := fn(s.near()); err != nil {
		return fmt.Errorf("making %s: %w", name, err)
	}
	s.made[name] = true
	return nil
}

// bash runs a script with arguments, for a minute at most: what takes longer
// is no figure, and others want to be measured, too.
func bash(script string, args ...string) error {
	const limit = time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", append([]string{"-euo", "pipefail", "-c", script, "bash"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "GIT_CONFIG_NOSYSTEM=1", "HOME=/nonexistent",
		"GIT_AUTHOR_NAME=bench", "GIT_AUTHOR_EMAIL=bench@localhost", "GIT_COMMITTER_NAME=bench", "GIT_COMMITTER_EMAIL=bench@localhost")
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("not done after %v", limit)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
