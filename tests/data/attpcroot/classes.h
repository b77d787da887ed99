// Data members of ATTPCROOT's event classes, as the streamer information of its files lists them,
// in several generations. Written for the tests of attpc-filter: no code of ATTPCROOT is in here,
// only what has to stand in a file: names, types, order and versions of the members.
//
// GENERATION 2021: pads and hits by value, TVector3, a text before the samples.
// GENERATION 2022: AtPad version 2 without base class of its own, events of version 5.
// GENERATION 2024: AtPad 3, AtHit 5, AtRawEvent 7, AtEvent 6: what ATTPCROOT writes now.
// GENERATION 2030: versions that nobody has written yet: AtPad 8 with its members in another order
//                  and things of changing length between them, AtHit 9 without its position.

#include <Math/Point2D.h>
#include <Math/Point3D.h>
#include <Math/Vector3D.h>
#include <TNamed.h>
#include <TObject.h>
#include <TString.h>
#include <TVector3.h>

#include <array>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#if GENERATION >= 2024
class AtPadBase : public TObject {
public:
   ClassDefOverride(AtPadBase, 1);
};
#endif

#if GENERATION == 2021
class AtPad : public TObject {
public:
   Int_t fPadNum = -1;
   Int_t fSizeID = -1000;
   Float_t fPadXCoord = -9999;
   Float_t fPadYCoord = -9999;
   std::string fAuxName;
   Int_t fRawAdc[512] = {};
   Int_t fMaxAdcIdx = 0;
   Bool_t fIsPedestalSubtracted = false;
   Double_t fAdc[512] = {};
   ClassDefOverride(AtPad, 1);
};
#elif GENERATION == 2022
class AtPad : public TObject {
public:
   Int_t fPadNum = -1;
   Int_t fSizeID = -1000;
   ROOT::Math::XYPoint fPadCoord{-9999, -9999};
   Bool_t fIsValid = true;
   Bool_t fIsPedestalSubtracted = false;
   std::array<Int_t, 512> fRawAdc{};
   std::array<Double_t, 512> fAdc{};
   ClassDefOverride(AtPad, 2);
};
#elif GENERATION == 2024
class AtPad : public AtPadBase {
public:
   Int_t fPadNum = -1;
   Int_t fSizeID = -1000;
   ROOT::Math::XYPoint fPadCoord{-9999, -9999};
   Bool_t fIsValid = true;
   Bool_t fIsPedestalSubtracted = false;
   std::array<Int_t, 512> fRawAdc{};
   std::array<Double_t, 512> fAdc{};
   std::map<std::string, std::unique_ptr<AtPadBase>> fPadAugments;
   AtPad() = default;
   AtPad(const AtPad &other) : AtPadBase(other) { *this = other; }
   AtPad &operator=(const AtPad &other) // all but the augments, which are not shared
   {
      std::tie(fPadNum, fSizeID, fPadCoord, fIsValid, fIsPedestalSubtracted, fRawAdc, fAdc) =
         std::tie(other.fPadNum, other.fSizeID, other.fPadCoord, other.fIsValid, other.fIsPedestalSubtracted,
                  other.fRawAdc, other.fAdc);
      return *this;
   }
   ClassDefOverride(AtPad, 3);
};
class AtAuxPad : public AtPad {
public:
   std::string fAuxName;
   ClassDefOverride(AtAuxPad, 1);
};
struct AtPadReference {
   Int_t cobo;
   Int_t asad;
   Int_t aget;
   Int_t ch;
   bool operator==(const AtPadReference &o) const
   {
      return std::tie(cobo, asad, aget, ch) == std::tie(o.cobo, o.asad, o.aget, o.ch);
   }
};
namespace std {
template <>
struct hash<AtPadReference> {
   size_t operator()(const AtPadReference &r) const { return ((r.cobo * 31 + r.asad) * 31 + r.aget) * 128 + r.ch; }
};
} // namespace std
class AtGenericTrace : public AtPadBase {
public:
   Int_t fTraceID = 0;
   ULong_t fSize = 0;
   std::vector<Int_t> fRawAdc;
   std::vector<Double_t> fAdc;
   ClassDefOverride(AtGenericTrace, 1);
};
class AtPadArray : public AtPadBase {
public:
   std::array<Double_t, 512> fArray{};
   ClassDefOverride(AtPadArray, 1);
};
#else
class AtPad : public AtPadBase {
public:
   std::vector<int> fHistory{1, 2, 3};
   std::array<Double_t, 512> fAdc{};
   TString fLabel = "a label";
   Short_t fGain = 7;
   ROOT::Math::XYPoint fPadCoord{-9999, -9999};
   std::array<Short_t, 512> fRawAdc{};
   TObject *fOwner = nullptr;
   Int_t fSizeID = -1000;
   std::map<std::string, AtPadBase *> fPadAugments;
   Int_t fPadNum = -1;
   Bool_t fIsValid = true;
   Bool_t fIsPedestalSubtracted = false;
   ClassDefOverride(AtPad, 8);
};
#endif

class AtPadTwin : public AtPad {
public:
   Double_t fExtra = 0.5;
   ClassDefOverride(AtPadTwin, 1);
};

#if GENERATION == 2021
class AtHit : public TObject {
public:
   Int_t fPadNum = -1;
   Int_t fTimeStamp = 0;
   Double_t fTimeStampCorr = 0;
   Int_t fHitID = -1;
   TVector3 fPosition;
   TVector3 fPositionSigma;
   Double_t fCharge = 0;
   Bool_t fIsClustered = false;
   Int_t fHitMult = 1;
   ClassDefOverride(AtHit, 3);
};
#else
class AtHit : public TObject {
public:
   struct MCSimPoint {
      int pointID = 0;
      int trackID = 0;
      double energy = 0;
      double eloss = 0;
      double angle = 0;
      int A = 0;
      int Z = 0;
   };
   Double_t fCharge = 0;
   Double_t fChargeVariance = 0;
#if GENERATION != 2030
   ROOT::Math::XYZPoint fPosition;
#endif
   ROOT::Math::XYZVector fPositionVariance;
   Int_t fHitID = -1;
   Int_t fPadNum = -1;
   Double_t fTraceIntegral = -1;
   Int_t fHitMult = 1;
   Int_t fTimeStamp = 0;
   Double_t fTimeStampCorr = 0;
   Double_t fTimeStampCorrInter = 0;
   std::vector<AtHit::MCSimPoint> fMCSimPointArray;
#if GENERATION == 2030
   ClassDefOverride(AtHit, 9);
#else
   ClassDefOverride(AtHit, 5);
#endif
};
#endif

#if GENERATION >= 2024
class AtBaseEvent : public TNamed {
public:
   ULong_t fEventID = -1;
   Bool_t fIsGood = true;
   Bool_t fIsInGate = false;
   std::vector<ULong64_t> fTimestamp{1};
#if GENERATION == 2024
   std::map<std::string, AtAuxPad> fAuxPadMap;
#else
   std::map<std::string, AtPad> fAuxPadMap;
#endif
   std::string fEventName;
   ClassDefOverride(AtBaseEvent, 1);
};
class AtRawEvent : public AtBaseEvent {
public:
   std::vector<std::unique_ptr<AtPad>> fPadList;
#if GENERATION == 2024
   std::unordered_map<AtPadReference, AtPad> fFpnMap;
   std::vector<std::unique_ptr<AtGenericTrace>> fGTraceList;
#endif
   std::multimap<Int_t, std::size_t> fSimMCPointMap;
   ClassDefOverride(AtRawEvent, 7);
};
class AtEvent : public AtBaseEvent {
public:
   Double_t fEventCharge = -100;
   Double_t fRhoVariance = 0;
   std::vector<std::unique_ptr<AtHit>> fHitArray;
   std::map<Int_t, Int_t> fMultiplicityMap;
   std::array<Float_t, 512> fMeshSig{};
   ClassDefOverride(AtEvent, 6);
};
#elif GENERATION == 2022
class AtRawEvent : public TNamed {
public:
   ULong_t fEventID = -1;
   std::vector<std::unique_ptr<AtPad>> fPadList;
   std::vector<ULong64_t> fTimestamp{1};
   Bool_t fIsGood = true;
   ClassDefOverride(AtRawEvent, 5);
};
class AtEvent : public TNamed {
public:
   Bool_t fIsGood = true;
   Int_t fEventID = -1;
   std::vector<AtHit> fHitArray;
   ClassDefOverride(AtEvent, 4);
};
#else
class AtRawEvent : public TNamed {
public:
   ULong_t fEventID = -1;
   std::vector<AtPad> fPadArray;
   std::vector<ULong64_t> fTimestamp{1};
   Bool_t fIsGood = true;
   ClassDefOverride(AtRawEvent, 3);
};
class AtEvent : public TNamed {
public:
   Bool_t fIsGood = true;
   Int_t fEventID = -1;
   std::vector<AtHit> fHitArray;
   Double_t fQevent = 0;
   ClassDefOverride(AtEvent, 3);
};
#endif

#ifdef __ROOTCLING__
#pragma link C++ class AtPad + ;
#pragma link C++ class AtPadTwin + ;
#pragma link C++ class AtHit + ;
#pragma link C++ class AtRawEvent + ;
#pragma link C++ class AtEvent + ;
#if GENERATION < 2024
#pragma link C++ class std::vector < AtPad> + ;
#pragma link C++ class std::vector < AtHit> + ;
#endif
#if GENERATION >= 2024
#pragma link C++ class AtPadBase + ;
#pragma link C++ class AtBaseEvent + ;
#endif
#if GENERATION == 2024
#pragma link C++ class AtAuxPad + ;
#pragma link C++ class AtPadReference + ;
#pragma link C++ class AtGenericTrace + ;
#pragma link C++ class AtPadArray + ;
#endif
#if GENERATION != 2021
#pragma link C++ class AtHit::MCSimPoint + ;
#endif
#endif
