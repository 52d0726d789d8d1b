/* What the standard library calls libunwind, for scripts/cargo-musl: panics abort, so nothing unwinds, and a backtrace is
 * empty. gcc's own, made for glibc, would abort where it finds no tables. */
typedef unsigned long word;

int _Unwind_Backtrace(void *trace, void *argument) { return 5; /* _URC_END_OF_STACK */ }
word _Unwind_GetIP(void *context) { return 0; }
word _Unwind_GetIPInfo(void *context, int *before) { *before = 0; return 0; }
word _Unwind_GetCFA(void *context) { return 0; }
void *_Unwind_FindEnclosingFunction(void *pc) { return pc; }
word _Unwind_GetDataRelBase(void *context) { return 0; }
word _Unwind_GetTextRelBase(void *context) { return 0; }
word _Unwind_GetRegionStart(void *context) { return 0; }
void *_Unwind_GetLanguageSpecificData(void *context) { return 0; }
void _Unwind_SetGR(void *context, int number, word value) {}
void _Unwind_SetIP(void *context, word value) {}
void _Unwind_Resume(void *exception) { __builtin_trap(); }
int _Unwind_RaiseException(void *exception) { __builtin_trap(); }
void _Unwind_DeleteException(void *exception) {}
