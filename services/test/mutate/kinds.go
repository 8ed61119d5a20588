package main

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"strings"
)

// look notes the mutants of one node.
func (f *finder) look(n ast.Node) {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		f.operator(n)
	case *ast.IfStmt:
		f.condition(n.Cond, true)
	case *ast.ForStmt:
		if n.Cond != nil {
			f.condition(n.Cond, false) // a condition that is always true would never end the loop
		}
	case *ast.CaseClause:
		if sw, ok := f.above(1).(*ast.SwitchStmt); ok && sw.Tag == nil {
			for _, cond := range n.List {
				f.condition(cond, true)
			}
		}
	case *ast.ReturnStmt:
		f.returns(n)
	case *ast.BasicLit:
		f.number(n)
	case *ast.Ident:
		f.constant(n)
	case ast.Stmt:
		f.statement(n)
	}
}

// above is the n-th node above the parent.
func (f *finder) above(n int) ast.Node {
	if i := len(f.stack) - 1 - n; i >= 0 {
		return f.stack[i]
	}
	return nil
}

// others are the operators that replace one.
var others = map[token.Token]token.Token{
	token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR,
	token.EQL: token.NEQ, token.NEQ: token.EQL,
	token.ADD: token.SUB, token.SUB: token.ADD, token.MUL: token.QUO, token.QUO: token.MUL, token.REM: token.MUL,
	token.LAND: token.LOR, token.LOR: token.LAND,
	token.AND: token.OR, token.OR: token.AND, token.SHL: token.SHR, token.SHR: token.SHL,
}

func (f *finder) operator(n *ast.BinaryExpr) {
	other, ok := others[n.Op]
	tv := f.code.info.Types[n]
	if !ok || tv.Value != nil || tv.Type == nil {
		return
	}
	if b, ok := tv.Type.Underlying().(*types.Basic); ok && b.Info()&types.IsString != 0 {
		return
	}
	x, y := f.text(n.X), f.text(n.Y)
	to := x + " " + other.String() + " " + y
	if n.Op == token.LAND || n.Op == token.LOR {
		f.replaceBool(n, to)
		// Each side alone, as if the other were not there.
		f.replaceBool(n, y)
		f.replaceBool(n, x)
		return
	}
	if isBool(tv.Type) {
		f.replaceBool(n, to)
		return
	}
	f.replace(n, tv.Type, to)
}

func isBool(t types.Type) bool {
	return t == types.Typ[types.Bool] || t == types.Typ[types.UntypedBool]
}

// replaceBool replaces a condition by another.
func (f *finder) replaceBool(n ast.Expr, to string) {
	if isBool(f.code.info.Types[n].Type) {
		f.add(n, changed(f.text(n), to), "(%s && ("+to+") || !%s && (", "))")
	}
}

// replace replaces a value by another of the same type.
func (f *finder) replace(n ast.Expr, t types.Type, to string) {
	if name, ok := f.typeName(t); ok {
		f.add(n, changed(f.text(n), to), "func() "+name+" { if %s { return "+to+" }; return (", ") }()")
	}
}

// condition negates a condition and makes it constant.
func (f *finder) condition(n ast.Expr, mayHold bool) {
	tv := f.code.info.Types[n]
	if tv.Value != nil || !isBool(tv.Type) {
		return
	}
	what := f.text(n)
	var op token.Token
	if b, ok := ast.Unparen(n).(*ast.BinaryExpr); ok {
		op = b.Op
	}
	if op != token.EQL && op != token.NEQ { // for these, the other operator is the negation again
		f.add(n, changed(what, "!("+what+")"), "(%s != (", "))")
	}
	// For && and ||, a change of one side says more.
	if mayHold && op != token.LAND {
		f.add(n, changed(what, "true"), "(%s || (", "))")
	}
	if op != token.LOR {
		f.add(n, changed(what, "false"), "(!%s && (", "))")
	}
}

// returns returns zero values, and nil instead of an error.
func (f *finder) returns(n *ast.ReturnStmt) {
	if f.loneStatement() {
		return
	}
	for i, result := range n.Results {
		tv := f.code.info.Types[result]
		if _, several := tv.Type.(*types.Tuple); several {
			return
		}
		if f.besideError(n, result) {
			continue
		}
		zero := f.zero(i, result)
		if zero == "" {
			continue
		}
		var all []string
		for j, other := range n.Results {
			if i == j {
				all = append(all, zero)
			} else {
				all = append(all, f.text(other))
			}
		}
		alt := "return " + strings.Join(all, ", ")
		f.add(n, changed(f.text(n), alt), "if %s { "+alt+" }; ", "")
	}
}

// besideError reports whether a value is returned together with an error that is made there: callers do not look at it.
func (f *finder) besideError(n *ast.ReturnStmt, value ast.Expr) bool {
	last := n.Results[len(n.Results)-1]
	if value == last {
		return false
	}
	if name, ok := last.(*ast.Ident); ok { // or one of the package's
		one, ok := f.code.info.Uses[name].(*types.Var)
		return ok && one.Parent() == f.code.types.Scope()
	}
	call, ok := last.(*ast.CallExpr)
	if !ok {
		return false
	}
	made, ok := call.Fun.(*ast.SelectorExpr)
	return ok && (made.Sel.Name == "Errorf" || made.Sel.Name == "New")
}

// loneStatement reports whether nothing can be put before the statement.
func (f *finder) loneStatement() bool {
	switch f.parent().(type) {
	case *ast.BlockStmt, *ast.CaseClause, *ast.CommClause:
		return false
	}
	return true
}

// zero is the zero value of a function's i-th result, or of a bool's the other one; empty if the result is that already.
func (f *finder) zero(i int, result ast.Expr) string {
	t := f.resultType(i)
	if t == nil {
		return ""
	}
	tv := f.code.info.Types[result]
	switch u := t.Underlying().(type) {
	case *types.Basic:
		switch {
		case u.Info()&types.IsBoolean != 0:
			if tv.Value != nil {
				return map[bool]string{true: "false", false: "true"}[constant.BoolVal(tv.Value)]
			}
			return "false"
		case u.Info()&types.IsNumeric != 0:
			if tv.Value != nil && constant.Sign(tv.Value) == 0 {
				return ""
			}
			return "0"
		case u.Info()&types.IsString != 0:
			if tv.Value != nil && constant.StringVal(tv.Value) == "" {
				return ""
			}
			return `""`
		}
	case *types.Pointer, *types.Slice, *types.Map, *types.Chan, *types.Signature, *types.Interface:
		if _, generic := t.(*types.TypeParam); generic || tv.IsNil() {
			return ""
		}
		return "nil"
	case *types.Struct, *types.Array:
		if lit, ok := result.(*ast.CompositeLit); ok && len(lit.Elts) == 0 {
			return ""
		}
		if name, ok := f.typeName(t); ok {
			return "*new(" + name + ")"
		}
	}
	return ""
}

// resultType is the type of the i-th result of the innermost function.
func (f *finder) resultType(i int) types.Type {
	for k := len(f.stack) - 1; k >= 0; k-- {
		var s *types.Signature
		switch fn := f.stack[k].(type) {
		case *ast.FuncLit:
			s, _ = f.code.info.Types[fn].Type.(*types.Signature)
		case *ast.FuncDecl:
			s, _ = f.code.info.Defs[fn.Name].Type().(*types.Signature)
		default:
			continue
		}
		if s == nil || i >= s.Results().Len() {
			return nil
		}
		return s.Results().At(i).Type()
	}
	return nil
}

// number adds one to a number.
func (f *finder) number(n *ast.BasicLit) {
	tv := f.code.info.Types[n]
	octal := len(n.Value) > 1 && n.Value[0] == '0' && n.Value[1] != 'x' // permissions
	if n.Kind != token.INT || octal || !isInteger(tv.Type) || f.isHint(n) {
		return
	}
	if back, ok := f.parent().(*ast.ReturnStmt); ok && f.besideError(back, n) || f.inConstant() {
		return
	}
	f.replace(n, tv.Type, n.Value+" + 1")
}

// constant adds one to a constant of the package, and subtracts one, wherever it is used.
func (f *finder) constant(n *ast.Ident) {
	c, ok := f.code.info.Uses[n].(*types.Const)
	if !ok || c.Pkg() != f.code.types || c.Parent() != f.code.types.Scope() {
		return
	}
	tv := f.code.info.Types[n]
	if !isInteger(tv.Type) || f.isHint(n) {
		return
	}
	if f.inConstant() {
		return
	}
	if named, ok := tv.Type.(*types.Named); ok && named.Obj().Pkg() == f.code.types {
		return // a name for one of several things, not a bound
	}
	name, ok := f.typeName(tv.Type)
	if !ok {
		return
	}
	for _, by := range []string{" + 1", " - 1"} {
		to := n.Name + by
		m := f.consts[to]
		if m == nil {
			m = f.add(n, changed(n.Name, to), "", "")
			m.edits, m.in = nil, "const"
			f.consts[to] = m
		}
		m.wrap(f, n, "func() "+name+" { if %s { return "+to+" }; return (", ") }()")
	}
}

// inConstant reports whether the node is a part of a larger constant.
func (f *finder) inConstant() bool {
	outer, ok := f.parent().(ast.Expr)
	return ok && f.code.info.Types[outer].Value != nil
}

// isInteger reports whether a type is of whole numbers, except durations: tests do not measure those.
func isInteger(t types.Type) bool {
	if t == nil || t.String() == "time.Duration" {
		return false
	}
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&types.IsInteger != 0
}

// isHint reports whether a number is only a hint about how much memory to allocate.
func (f *finder) isHint(n ast.Expr) bool {
	call, ok := f.parent().(*ast.CallExpr)
	if !ok || len(call.Args) < 2 {
		return false
	}
	name, ok := call.Fun.(*ast.Ident)
	if !ok || name.Name != "make" {
		return false
	}
	_, isMap := f.code.info.Types[call.Args[0]].Type.Underlying().(*types.Map)
	return isMap || len(call.Args) == 3 && call.Args[2] == n
}

// statement leaves a statement out.
func (f *finder) statement(n ast.Stmt) {
	if f.loneStatement() {
		return
	}
	if comm, ok := f.parent().(*ast.CommClause); ok && comm.Comm == n {
		return
	}
	switch n := n.(type) {
	case *ast.ExprStmt:
		if call, ok := n.X.(*ast.CallExpr); ok && f.isLog(call) {
			return
		}
	case *ast.AssignStmt:
		if n.Tok == token.DEFINE {
			return
		}
	case *ast.IncDecStmt, *ast.DeferStmt, *ast.GoStmt, *ast.SendStmt, *ast.BranchStmt:
	default:
		return
	}
	f.add(n, "without "+short(f.text(n)), "if !%s { ", " }")
}

// isLog reports whether a call writes a line of a log: nothing depends on that.
func (f *finder) isLog(call *ast.CallExpr) bool {
	s, ok := call.Fun.(*ast.SelectorExpr)
	return ok && f.code.info.Types[s.X].Type != nil && f.code.info.Types[s.X].Type.String() == "*go.uber.org/zap.Logger"
}

// typeName is how the file writes a type.
func (f *finder) typeName(t types.Type) (name string, ok bool) {
	if b, untyped := t.(*types.Basic); untyped && b.Info()&types.IsUntyped != 0 {
		t = types.Default(t)
	}
	ok = true
	name = types.TypeString(t, func(p *types.Package) string {
		if p == f.code.types {
			return ""
		}
		for _, i := range f.file.ast.Imports {
			if strings.Trim(i.Path.Value, `"`) != p.Path() {
				continue
			}
			if i.Name != nil {
				return i.Name.Name
			}
			return p.Name()
		}
		ok = false
		return p.Name()
	})
	return name, ok
}
