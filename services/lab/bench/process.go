package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"
)

// stopWithin is how long a server may take to stop before it is ended.
const stopWithin = 30 * time.Second

// process is a server in a process of its own.
type process struct {
	name    string
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers *json.Decoder
	hello   hello
}

func startProcess(ctx context.Context, o Options, role, dir string) (*process, error) {
	cmd, err := o.Server(role, dir)
	if err != nil {
		return nil, err
	}
	p := &process{name: filepath.Base(dir), cmd: cmd}
	cmd.Stderr = o.Errors
	if p.orders, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.answers = json.NewDecoder(out)
	err = p.read(ctx, &p.hello)
	if err == nil && p.hello.Error != "" {
		err = errors.New(p.hello.Error)
	}
	if err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// ask gives an order and waits until it is done.
func (p *process) ask(ctx context.Context, q order) (answer, error) {
	var a answer
	if err := json.NewEncoder(p.orders).Encode(q); err != nil {
		return a, fmt.Errorf("tell %s to %s: %w", p.name, q.Do, err)
	}
	if err := p.read(ctx, &a); err != nil {
		return a, fmt.Errorf("%s told to %s: %w", p.name, q.Do, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("%s told to %s: %s", p.name, q.Do, a.Error)
	}
	return a, nil
}

// read reads an answer. A server whose orders end stops, whatever it does, so
// the end of ctx ends the wait.
func (p *process) read(ctx context.Context, into any) error {
	defer context.AfterFunc(ctx, func() { _ = p.orders.Close() })()
	err := p.answers.Decode(into)
	if errors.Is(err, io.EOF) {
		return errors.New("the server has ended: its last words are above")
	}
	return err
}

// stop waits for the end of the process.
func (p *process) stop() error {
	_ = p.orders.Close()
	defer time.AfterFunc(stopWithin, func() { _ = p.cmd.Process.Kill() }).Stop()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	return nil
}

// use asks what the process has used so far.
func (p *process) use(ctx context.Context) (use, error) {
	a, err := p.ask(ctx, order{Do: doUse})
	return a.Use, err
}
